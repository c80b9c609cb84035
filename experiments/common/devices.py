"""Rows of the batch over several devices, of one process or of many, for `--devices`."""

from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from experiments.common.errors import ConfigError

AXIS = "rows"


def read_number(text: str) -> int:
    """The number of devices that `--devices` names; ConfigError unless there are so many."""
    there = jax.device_count()
    if text == "all":
        return there
    if jax.process_count() > 1:
        raise ConfigError(f"--devices is {text!r}: expected 'all' with several processes.")
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
    return jax.tree.map(lambda leaf: _place(leaf, NamedSharding(mesh, P())), tree)


def split_stream(stream: Any, mesh: jax.sharding.Mesh) -> Any:
    """The stream with its rows, the second axis of its arrays, split over the devices."""

    def of_leaf(leaf: Any) -> Any:
        spec = P(None, AXIS) if leaf.ndim > 1 else P()
        return _place(leaf, NamedSharding(mesh, spec))

    return jax.tree.map(of_leaf, stream)


def place(values: Any, like: Any) -> Any:
    """The whole array, or the data of keys, as the leaf `like` is: on the same devices."""
    if not isinstance(like, jax.Array):
        return values
    if not jax.dtypes.issubdtype(like.dtype, jax.dtypes.prng_key):
        return _place(values, like.sharding)
    data = _place(values, jax.random.key_data(like).sharding)
    return jax.random.wrap_key_data(data, impl=jax.random.key_impl(like))


def _place(leaf: Any, sharding: jax.sharding.Sharding) -> jax.Array:
    """A whole array that every process has, split: each process reads the part of its devices."""
    values = np.asarray(leaf)
    return jax.make_array_from_callback(values.shape, sharding, lambda index: values[index])
