"""Rows split over devices: each device runs its own, and one sum of the gradients ends an estimate.

XLA can split a program over devices by itself, but it would then sum the gradient over the devices
at every chunk of steps, inside the loops. Here `jax.shard_map` makes the split explicit.
"""

import dataclasses
from collections.abc import Callable
from itertools import combinations
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from artbp import _tree
from artbp.estimators.base import (
    ChunkedEstimator,
    EstimatorState,
    GradientEstimator,
    Result,
    check_estimator,
    check_init,
    check_not_differentiated,
    check_state,
    make_estimator,
)
from artbp.stream import RowsOfDevice, Stream
from artbp.unrolls.checks import check_params, check_stream


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
    counts of losses, two integers; on a stream with resets, `forward_gradient`, `pes`, `gpes` and
    `nres` have one more of integers. The loops over steps have none. Both types of mesh axes, Auto
    and Explicit, are supported.

    Rows are the first axis of the carry and the second axis of the arrays of the stream, `[T, B,
    ...]`. All rows may share other arrays, such as a mask `[T]` or weights of classes `[T, D]`,
    which are then on every device. If D happens to be B, the shape does not tell which of the two
    an array of `xs` or `targets` is. So `estimate` is traced with the whole array on every device,
    and the array is split only if this fails, because cell or loss need as many entries as the
    device has rows. These traces are made once for each set of shapes. Later calls, inside or
    outside of `jax.jit`, trace neither cell nor loss.

    The gradient is the sum of those of the devices. So `loss_fn` must return one loss for each row,
    and the loss of a row must not depend on the number of rows, which is smaller on a device: pass
    the number of all rows to `normalizer`. Rows must not interact in the cell either, as they do in
    batch normalisation. Danger: an array of the carry without rows must not have as many entries
    as there are rows, because it would be split. A random key that all rows share draws the same
    numbers on every device, so give each row its own key, or fold `jax.lax.axis_index(axis)` into
    the key in the cell.

    Call `estimate` inside `jax.jit`, as usual, to compile it together with the optimizer. `init` is
    called outside of it.

    Args:
      estimator: any but `uoro` and `adaptive_tbptt`, whose gradients are not the sums of those of
        the rows, and `contrib.with_auxiliary_loss`; with its normalizer for all rows together.
      mesh: the devices. The number of rows must be a multiple of the size of `axis`.
      axis: the name of the axis to split the rows over.

    Raises:
      ValueError: the mesh has no such axis. From `init`: a number of rows that the axis does not
        divide; otherwise as the `init` of the estimator. From `estimate`: `uoro`,
        `adaptive_tbptt` or `contrib.with_auxiliary_loss`; with several devices, losses of a step
        that are not `[B]`.
      TypeError: as the estimator.
    """
    check_estimator(estimator)
    if axis not in mesh.shape:
        raise ValueError(
            f"axis={axis!r}; expected an axis of the mesh, one of {mesh.axis_names}. Pass its "
            f"name, or make the mesh with jax.make_mesh((8,), ({axis!r},))."
        )
    size = mesh.shape[axis]

    def begin(params: Any, carry: Any, initial: Any, rng_key: jax.Array) -> EstimatorState:
        return estimator.init(params, carry, rng_key=rng_key, initial_carry=initial)

    def init(
        params: Any, carry: Any, *, rng_key: jax.Array, initial_carry: Any = None
    ) -> EstimatorState:
        carry = check_init(params, carry, rng_key, initial_carry)
        num_rows = _num_rows(carry)
        if num_rows % size:
            raise ValueError(
                f"The carry has {num_rows} rows, which {size} devices cannot share equally. Pass a "
                f"multiple of {size} rows, or a mesh of fewer devices."
            )
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
        check_params(params)
        check_state(state)
        check_stream(stream)
        check_not_differentiated(params, state, stream)
        return on_devices(params, state, stream)

    @jax.jit
    def on_devices(params: Any, state: EstimatorState, stream: Stream) -> Result:
        num_rows, of_state = _num_rows(state.carry), state_specs(params, state)

        def of_device(params: Any, state: EstimatorState, stream: Stream) -> Result:
            if size > 1:
                fields = {f.name: getattr(stream, f.name) for f in dataclasses.fields(stream)}
                stream = RowsOfDevice(**fields, num_rows=num_rows // size)
            return estimator.estimate(params, state, stream)

        def run(of_stream: Stream) -> Result:
            split_stream = stream
            if AxisType.Explicit in mesh.axis_types:  # types must then agree with the specs
                placed = jax.tree.map(lambda spec: NamedSharding(mesh, spec), of_stream)
                split_stream = jax.tree.map(jax.sharding.reshard, stream, placed)
            in_specs, out_specs = (P(), of_state, of_stream), (P(), of_state, P())
            of_devices = jax.shard_map(of_device, mesh=mesh, in_specs=in_specs, out_specs=out_specs)
            return of_devices(params, state, split_stream)

        def fits(of_stream: Stream) -> bool:
            try:
                jax.eval_shape(lambda: run(of_stream))
            except Exception:  # whatever a user's cell or loss raises for other shapes
                return False
            return True

        return run(stream_specs(stream, num_rows, fits))

    def stream_specs(stream: Stream, num_rows: int, fits: Callable[[Stream], bool]) -> Stream:
        """The axis of rows of every array: none where the estimate can be traced without it.

        One array is tried at a time, and then two, which may be combined with each other.
        """
        leaves, treedef = jax.tree.flatten(stream)
        # The leaves of xs and targets come first. The second axis of resets and mask is the rows.
        num_unclear = len(jax.tree.leaves((stream.xs, stream.targets)))

        def specs(split: set[int]) -> Stream:
            found = [P(None, axis) if i in split else P() for i in range(len(leaves))]
            return treedef.unflatten(found)

        def shared_by_rows(split: set[int]) -> set[int]:
            unclear = sorted(i for i in split if i < num_unclear)
            for group in [*combinations(unclear, 1), *combinations(unclear, 2)]:
                if fits(specs(split - set(group))):
                    return set(group)
            return set()

        split = {i for i, leaf in enumerate(leaves) if jnp.shape(leaf)[1:2] == (num_rows,)}
        while shared := shared_by_rows(split):
            split -= shared
        return specs(split)

    plan = estimator.plan if isinstance(estimator, ChunkedEstimator) else None
    return make_estimator(init, estimate, plan)


def _num_rows(carry: Any) -> int:
    """The first axis of the first array of the carry that has axes."""
    for leaf in jax.tree.leaves(carry):
        if jnp.ndim(leaf):
            return jnp.shape(leaf)[0]
    raise ValueError(
        "The carry has no array with an axis of rows; expected leaves [B, ...], to split over the "
        "devices. Give it rows, or do without data_parallel."
    )
