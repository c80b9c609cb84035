"""A batching rule for segment kernels: `jax.vmap` over segments of different lengths.

Where trip counts differ by row, JAX batches a `while_loop` by a select between the old and the new
value of everything that the loop carries, at every step, buffers included. The rule here gives the
kernel the names of the mapped axes instead. The kernel takes the longest trip count over those
axes, which all rows share, and masks only its carry and its gradient sums.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
from jax.custom_batching import custom_vmap


def lockstep(kernel: Callable[..., Any], depth: int = 0) -> Callable[..., Any]:
    """Makes `jax.vmap` of a kernel run its rows in lockstep: loops of one common trip count.

    Args:
      kernel: `kernel(*args, axis_names=names)`, pure, on pytrees of arrays. `names` are the vmap
        axes along which trip counts differ.
      depth: how many vmaps the kernel already contains; names the next axis.

    Returns:
      `kernel` as a function of `*args`, to be vmapped as often as wanted.
    """

    call = custom_vmap(functools.partial(kernel, axis_names=()))

    @call.def_vmap
    def rule(axis_size: int, in_batched: list[Any], *args: Any) -> tuple[Any, Any]:
        name = f"segments_{depth}"
        in_axes = jax.tree.map(lambda batched: 0 if batched else None, tuple(in_batched))

        def rows(*args: Any, axis_names: tuple[str, ...]) -> Any:
            one_row = functools.partial(kernel, axis_names=(*axis_names, name))
            return jax.vmap(one_row, in_axes, axis_name=name, axis_size=axis_size)(*args)

        out = lockstep(rows, depth + 1)(*args)
        return out, jax.tree.map(lambda _: True, out)

    return call
