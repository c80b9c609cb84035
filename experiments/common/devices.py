"""Several devices, for `--devices`: they share the rows of a batch, or the runs of a study.

The devices that share rows may be those of many processes, see `processes`.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from absl import flags
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from experiments.common.errors import ConfigError

AXIS = "rows"
FLAG = flags.DEFINE_string(
    "devices",
    "1",
    "Number of devices, or 'all'. A run on Penn Treebank splits the rows of its batch over them, "
    "and may be resumed on another number. A study splits its runs (keys, seeds, rates).",
)

_num_for_runs = 1  # of this process; a context of JAX would be that of one thread


@contextlib.contextmanager
def for_runs(number: int) -> Iterator[None]:
    """Within the block, each new `OverRuns` uses so many devices, in all threads."""
    global _num_for_runs
    before, _num_for_runs = _num_for_runs, number
    try:
        yield
    finally:
        _num_for_runs = before


class OverRuns:
    """Compiles a function of many runs, such as keys or rates, and splits the runs over devices.

        train = OverRuns(jax.vmap(train_one, (0, None)), in_axes=(0, None))
        losses = train(keys, stream)  # [runs]

    Each device executes the program for its share of the runs. There is no operation between
    devices, so a while loop ends as soon as the runs of its own device are done. With one device
    this is `jax.jit(function)`. With several, the last run is repeated until all devices have equal
    shares. The repetitions are left out of the results, which are NumPy arrays.

    Args:
        function: takes trees of arrays. Its results have the runs as first axis. It may
            be vmapped over runs, or loop over them.
        in_axes: for each argument 0 if its first axis is the runs, or None if all runs share it.
    """

    def __init__(self, function: Callable, in_axes: Sequence[int | None]) -> None:
        self._in_axes = in_axes
        self._mesh = make_mesh(_num_for_runs) if _num_for_runs > 1 else None
        if self._mesh is not None:
            specs = tuple(P() if axis is None else P(AXIS) for axis in in_axes)
            function = jax.shard_map(
                function, mesh=self._mesh, in_specs=specs, out_specs=P(AXIS), check_vma=False
            )
        self._jitted = jax.jit(function)

    def __call__(self, *arguments: Any) -> Any:
        """Returns the results for all runs."""
        placed, number = self._place(arguments)
        return self._take(self._jitted(*placed), number)

    def compile(self, *arguments: Any) -> tuple[jax.stages.Compiled, Callable[[], Any]]:
        """Returns the compiled program, and a function that runs it on these arguments."""
        placed, number = self._place(arguments)
        compiled = self._jitted.lower(*placed).compile()
        return compiled, lambda: self._take(compiled(*placed), number)

    def _place(self, arguments: Sequence[Any]) -> tuple[Sequence[Any], int | None]:
        """The arguments on the devices, with repeated runs, and the number of runs without them."""
        if self._mesh is None:
            return arguments, None
        axes = zip(arguments, self._in_axes, strict=True)
        leaves = jax.tree.leaves([argument for argument, axis in axes if axis is not None])
        number, share = len(leaves[0]), -(-len(leaves[0]) // self._mesh.size)
        indices = np.minimum(np.arange(share * self._mesh.size), number - 1)

        def place(argument: Any, axis: int | None) -> Any:
            if axis is None:
                return jax.device_put(argument, NamedSharding(self._mesh, P()))
            repeated = jax.tree.map(lambda leaf: leaf[indices], argument)
            return jax.device_put(repeated, NamedSharding(self._mesh, P(AXIS)))

        return [*map(place, arguments, self._in_axes)], number

    def _take(self, results: Any, number: int | None) -> Any:
        if number is None:
            return results
        return jax.tree.map(lambda leaf: np.asarray(leaf)[:number], results)


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
