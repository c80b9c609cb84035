"""Rows split over devices: each device runs its own, and one sum of the gradients ends an estimate.

XLA can split a program over devices by itself, but it would then sum the gradient over the devices
at every chunk of steps, inside the loops. Here `jax.shard_map` makes the split explicit.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from artbp import _tree
from artbp.estimators.base import (
    ChunkedEstimator,
    EstimatorState,
    GradientEstimator,
    Result,
    make_estimator,
)
from artbp.stream import Stream
from artbp.unrolls.checks import check_finite


def data_parallel(
    estimator: GradientEstimator, mesh: jax.sharding.Mesh, axis: str
) -> GradientEstimator:
    """Splits the rows of the batch over the devices along one axis of a mesh.

        mesh = jax.make_mesh((8,), ("rows",))
        tbptt = artbp.tbptt(cell, loss_fn, truncation_length=50)
        estimator = artbp.data_parallel(tbptt, mesh, "rows")

    The result is an estimator like the one given, with the same gradients up to rounding. Every
    device holds all params and its own rows of the carry, of the buffers and of the stream. An
    update has one all-reduce of the gradient, together with the sum of the losses, and one of the
    counts of losses, two integers. The loops over steps have none. Both types of mesh axes,
    Auto and Explicit, are supported.

    Rows are the first axis of the carry and the second axis of the arrays of the stream. An array
    without that axis, such as a mask `[T]`, is on every device. Danger: an array of the carry
    without rows must not have as many entries as there are rows, because it would be split too; and
    rows must not interact in the cell, as they do in batch normalisation. A random key that all
    rows share draws the same numbers on every device, so give each row its own key, or fold
    `jax.lax.axis_index(axis)` into the key in the cell.

    Call `estimate` inside `jax.jit`, as usual. `init` is called outside of it.

    Args:
      estimator: any of `bptt`, `tbptt`, `tbptt_k1_k2` except with `mode="past_weights"`, `artbp`,
        `random_truncation`, `awd_lstm_bptt` and `unbiased_tbptt`, with its normalizer for all rows
        together. JAX refuses the others with a message on types that differ.
      mesh: the devices. The number of rows must be a multiple of the size of `axis`.
      axis: the name of the axis to split the rows over.

    Raises:
      ValueError: the mesh has no such axis; a number of rows that it does not divide.
    """
    if axis not in mesh.shape:
        raise ValueError(f"axis={axis!r} is not an axis of the mesh, which has {mesh.axis_names}.")
    size = mesh.shape[axis]

    def begin(params: Any, carry: Any, initial: Any, rng_key: jax.Array) -> EstimatorState:
        return estimator.init(params, carry, rng_key=rng_key, initial_carry=initial)

    def init(
        params: Any, carry: Any, *, rng_key: jax.Array, initial_carry: Any = None
    ) -> EstimatorState:
        num_rows = _num_rows(carry)
        if num_rows % size:
            raise ValueError(
                f"The carry has {num_rows} rows, which {size} devices cannot share equally. Pass a "
                f"multiple of {size} rows, or a mesh of fewer devices."
            )
        check_finite(params)
        arguments = (*_tree.as_arrays((params, carry, initial_carry)), rng_key)
        specs = state_specs(params, jax.eval_shape(begin, *arguments))
        placed = jax.tree.map(lambda spec: NamedSharding(mesh, spec), specs)
        return jax.jit(begin, out_shardings=placed)(*arguments)

    def state_specs(params: Any, state: EstimatorState) -> EstimatorState:
        """The axis of rows of every array: the one whose size follows that of the carry."""
        num_rows = _num_rows(state.carry)

        def with_rows(count: int) -> EstimatorState:
            def of_leaf(leaf: Any) -> Any:
                shape = jnp.shape(leaf)
                if shape[:1] == (num_rows,):
                    shape = (count, *shape[1:])
                return jax.ShapeDtypeStruct(shape, leaf.dtype)

            like = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), params)
            carries = jax.tree.map(of_leaf, (state.carry, state.initial_carry))
            return jax.eval_shape(begin, like, *carries, state.rng_key)

        def spec(one: Any, other: Any) -> P:
            differ = np.flatnonzero(np.not_equal(one.shape, other.shape))
            return P(*[None] * int(differ[0]), axis) if differ.size else P()

        return jax.tree.map(spec, with_rows(num_rows), with_rows(2 * num_rows))

    def estimate(params: Any, state: EstimatorState, stream: Stream) -> Result:
        num_rows = _num_rows(state.carry)
        is_split = lambda leaf: jnp.ndim(leaf) > 1 and jnp.shape(leaf)[1] == num_rows  # noqa: E731
        of_stream = jax.tree.map(lambda leaf: P(None, axis) if is_split(leaf) else P(), stream)
        of_state = state_specs(params, state)
        split = jax.shard_map(
            estimator.estimate,
            mesh=mesh,
            in_specs=(P(), of_state, of_stream),
            out_specs=(P(), of_state, P()),
        )
        return split(params, state, stream)

    plan = estimator.plan if isinstance(estimator, ChunkedEstimator) else None
    return make_estimator(init, estimate, plan)


def _num_rows(carry: Any) -> int:
    """The first axis of the first array of the carry that has axes."""
    for leaf in jax.tree.leaves(carry):
        if jnp.ndim(leaf):
            return jnp.shape(leaf)[0]
    raise ValueError("The carry has no array with an axis of rows, [B, ...], to split.")
