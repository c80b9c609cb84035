"""Walking along a stream segment by segment: what BPTT, TBPTT and ARTBP share.

They differ in two functions, handed in here: how long the next segment is, and which gate its steps
get. The gradient of a segment is the business of the kernels in `artbp.unrolls`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from artbp import _tree
from artbp.estimators.base import EstimatorInfo, EstimatorState, GradientEstimator, start
from artbp.stream import Stream
from artbp.unrolls import chained, dynamic
from artbp.unrolls.batching import lockstep
from artbp.unrolls.checks import check_cell, check_params, check_positive, check_resets
from artbp.unrolls.closure import hoist, hoist_cell
from artbp.unrolls.policies import Policy, check_policy, resolve_policy
from artbp.unrolls.segment import Problem, SegmentResult

NextLength = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]

# Lengths that the host-driven policies draw in one call; the device is asked once per this many.
_PLAN = 256


def segmentwise(
    problem: Problem,
    next_length: NextLength,
    *,
    normalizer: float,
    policy: Policy | None,
    block_size: int,
    cache_size: int,
) -> GradientEstimator:
    """Builds an estimator from a law of lengths and a gate.

    Args:
      problem: cell, loss function and gate.
      next_length: `next_length(rng_key, segment, at_start) -> int32`, the length of segment
        number `segment`, before the stream's end is minded; `at_start`, bool, is whether it
        begins the stream.
      normalizer, policy, block_size, cache_size: see `artbp.artbp`.
    """
    check_policy(policy)
    check_positive(normalizer=normalizer)
    check_positive(block_size=block_size, cache_size=cache_size, integer=True)
    kernels = {
        name: chained.segment_kernel(problem, split, block_size, cache_size)
        for name, split in (("exact", chained.exact_pieces), ("pow2", chained.pow2_pieces))
    }

    def make_scratch(params: Any, carry: Any) -> Any:
        if policy not in (None, "dynamic"):
            return ()
        return dynamic.make_scratch(problem.cell, params, carry, block_size)

    def init(params: Any, carry: Any, *, rng_key: jax.Array) -> EstimatorState:
        return start(params, carry, rng_key, scratch=make_scratch)

    @jax.jit  # on the host-driven path, one program instead of one for each leaf
    def normalize(
        grads: Any, carry: Any, initial_carry: Any, end_of_stream: Any
    ) -> tuple[Any, Any]:
        """(the gradients as they are returned, the carry that enters the next segment)."""
        grads = jax.tree.map(lambda grad: (grad / normalizer).astype(grad.dtype), grads)
        return grads, _tree.select(jnp.asarray(end_of_stream), initial_carry, carry)

    def finish(
        result: SegmentResult, state: EstimatorState, stream: Stream, length: Any
    ) -> tuple[Any, EstimatorState, EstimatorInfo]:
        position = (state.position + length) % np.int32(stream.num_steps)
        end_of_stream = position == 0
        grads, carry = normalize(result.grads, result.carry, state.initial_carry, end_of_stream)
        new_state = state._replace(
            position=position,
            num_estimates=state.num_estimates + np.int32(1),
            carry=carry,
            scratch=result.scratch,
        )
        info = EstimatorInfo(
            loss_sum=result.loss_sum,
            num_losses=result.num_losses,
            length=jnp.asarray(length, jnp.int32),
            max_compensation=result.max_compensation,
            max_weight=result.max_weight,
            end_of_stream=jnp.asarray(end_of_stream),
        )
        return grads, new_state, info

    @jax.jit
    def estimate_dynamic(
        params: Any, state: EstimatorState, stream: Stream
    ) -> tuple[Any, EstimatorState, EstimatorInfo]:
        position, segment = jnp.asarray(state.position), jnp.asarray(state.num_estimates)
        length = next_length(state.rng_key, segment, position == 0)
        length = jnp.minimum(length, stream.num_steps - position)
        kernel, constants = _without_closures(problem, block_size, params, state.carry, stream)
        result = lockstep(kernel)(
            constants,
            params,
            state.carry,
            state.initial_carry,
            state.scratch,
            stream,
            position,
            length,
        )
        return finish(result, state, stream, length)

    @functools.lru_cache(maxsize=4)
    def plan(key_bytes: bytes, key_like: Any, first: int, at_start: bool) -> np.ndarray:
        """Lengths of the segments first, …, first + _PLAN − 1, drawn ahead of need."""
        shape, dtype, impl = key_like
        data = np.frombuffer(key_bytes, dtype).reshape(shape)
        with jax.default_device(_host_device()):
            rng_key = jnp.asarray(data)
            if impl is not None:
                rng_key = jax.random.wrap_key_data(rng_key, impl=impl)
            segments = jnp.arange(first, first + _PLAN, dtype=jnp.int32)
            draw = jax.vmap(next_length, in_axes=(None, 0, None))
            return np.asarray(draw(rng_key, segments, jnp.asarray(at_start)))

    def estimate_from_host(
        kernel: Callable[..., SegmentResult], params: Any, state: EstimatorState, stream: Stream
    ) -> tuple[Any, EstimatorState, EstimatorInfo]:
        # Position and segment stay NumPy scalars: reading them never waits for the device.
        position, segment = np.int32(state.position), np.int32(state.num_estimates)
        if position >= stream.num_steps:
            raise ValueError(
                f"The state stands at step {position}, beyond this stream of {stream.num_steps} "
                "steps. Go on with the stream it was made on, or start with init."
            )
        state = state._replace(position=position, num_estimates=segment)
        first = int(segment) - int(segment) % _PLAN
        lengths = plan(*_key_bytes(state.rng_key), first, bool(position == 0))
        length = min(int(lengths[int(segment) - first]), stream.num_steps - int(position))
        result = kernel(
            params,
            state.carry,
            state.initial_carry,
            state.scratch,
            stream,
            int(position),
            length,
        )
        return finish(result, state, stream, np.int32(length))

    def estimate(
        params: Any, state: EstimatorState, stream: Stream
    ) -> tuple[Any, EstimatorState, EstimatorInfo]:
        check_params(params)
        params = _tree.as_arrays(params)
        stream.check_lengths()
        check_resets(state.carry, stream.resets)
        traced = any(
            isinstance(leaf, jax.core.Tracer)
            # An operation on constants is traced too, inside a jit without arguments.
            for leaf in [*jax.tree.leaves((params, state, stream)), jnp.zeros(())]
        )
        chosen = resolve_policy(policy, traced)
        if chosen == "dynamic":
            return estimate_dynamic(params, state, stream)
        return estimate_from_host(kernels[chosen], params, state, stream)

    return GradientEstimator(init, estimate)


def _without_closures(
    problem: Problem, block_size: int, params: Any, carry: Any, stream: Stream
) -> tuple[Callable[..., SegmentResult], Any]:
    """The dynamic kernel as a function of all that it reads, and what the user's functions close
    over: a batching rule sees arguments only."""
    x, target = _tree.index((stream.xs, stream.targets), 0)
    y = check_cell(problem.cell, params, carry, x)
    cell_of, cell_constants = hoist_cell(problem.cell, params, carry, x)
    loss_fn, loss_constants = hoist(problem.loss_fn, params, y, target)

    def kernel(constants: Any, *arguments: Any, axis_names: tuple[str, ...]) -> SegmentResult:
        cell_constants, loss_constants = constants
        pure = problem._replace(
            cell=cell_of(cell_constants),
            loss_fn=functools.partial(loss_fn, loss_constants),
        )
        return dynamic.segment_gradient(
            pure, *arguments, block_size=block_size, axis_names=axis_names
        )

    return kernel, (cell_constants, loss_constants)


def _host_device() -> jax.Device:
    """The CPU, where lengths are drawn without waiting for an accelerator's queue, if it is on."""
    try:
        return jax.local_devices(backend="cpu")[0]
    except RuntimeError:  # JAX_PLATFORMS names accelerators only
        return jax.local_devices()[0]


def _key_bytes(rng_key: jax.Array) -> tuple[bytes, tuple[Any, ...]]:
    """A key, typed or raw, as something that can be hashed."""
    typed = _tree.is_key(rng_key)
    data = np.asarray(jax.random.key_data(rng_key) if typed else rng_key)
    impl = str(jax.random.key_impl(rng_key)) if typed else None
    return data.tobytes(), (data.shape, data.dtype.str, impl)
