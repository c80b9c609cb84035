"""Rows of the batch over several devices of one process, for `--devices`."""

from typing import Any

import jax
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from experiments.common.errors import ConfigError

AXIS = "rows"


def read_number(text: str) -> int:
    """The number of devices that `--devices` names; ConfigError unless there are so many."""
    there = jax.device_count()
    if text == "all":
        return there
    if not text.isdecimal() or not 1 <= int(text) <= there:
        raise ConfigError(
            f"--devices is {text!r}: expected 'all' or a number from 1 to {there}, the devices "
            "that JAX finds."
        )
    return int(text)


def check(num_devices: int, num_rows: int, driver: str) -> None:
    """Raises ConfigError for a batch that the devices cannot share, or a driver for one device."""
    if num_rows % num_devices:
        raise ConfigError(
            f"batch is {num_rows}, which {num_devices} devices cannot share equally. Choose a "
            f"batch that is a multiple of {num_devices}, or other --devices."
        )
    if num_devices > 1 and driver != "compiled":
        raise ConfigError(f"driver is {driver!r}: expected 'compiled' with several devices.")


def make_mesh(num_devices: int) -> jax.sharding.Mesh:
    """The first devices along one axis, whose sharding XLA propagates."""
    kinds = (jax.sharding.AxisType.Auto,)
    return jax.make_mesh((num_devices,), (AXIS,), kinds, devices=jax.devices()[:num_devices])


def on_every_device(tree: Any, mesh: jax.sharding.Mesh) -> Any:
    """The arrays, whole on every device."""
    return jax.device_put(tree, NamedSharding(mesh, P()))


def split_stream(stream: Any, mesh: jax.sharding.Mesh) -> Any:
    """The stream with its rows, the second axis of its arrays, split over the devices."""

    def of_leaf(leaf: Any) -> Any:
        spec = P(None, AXIS) if leaf.ndim > 1 else P()
        return jax.device_put(leaf, NamedSharding(mesh, spec))

    return jax.tree.map(of_leaf, stream)
