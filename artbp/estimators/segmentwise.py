"""Shared driver for estimators that go along a stream segment by segment (BPTT, TBPTT, ARTBP).

They differ in two functions: how long the next segment is, and the gate of a step, which is
`Functions.compensation`. The kernels in `artbp.unrolls` compute the gradient of a segment.
"""

import functools
from collections.abc import Callable
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np

from artbp import _devices, _tree
from artbp._checks import as_divisor, check_function, check_positive
from artbp.estimators.base import (
    EstimatorInfo,
    EstimatorState,
    GradientEstimator,
    Plan,
    Result,
    check_chunk,
    check_not_differentiated,
    check_one_run,
    check_position,
    check_state,
    clip_position,
    draw_ahead,
    make_estimator,
    start,
)
from artbp.stream import Stream
from artbp.unrolls import static_lengths
from artbp.unrolls.arguments import as_carry
from artbp.unrolls.batching import lockstep
from artbp.unrolls.checks import check_params, check_resets, check_stream
from artbp.unrolls.closure import hoist_functions
from artbp.unrolls.dynamic import check_scratch, make_scratch, segment_gradient
from artbp.unrolls.first_step import warn_of_unused_params
from artbp.unrolls.functions import Functions, SegmentResult
from artbp.unrolls.policies import Policy, check_policy, resolve_policy

# Lengths are drawn ahead on the CPU, this many in one call, so most estimates draw none.
_AHEAD = 256

SegmentStart = Literal["carried", "initial"]


def segmentwise(
    functions: Functions,
    next_length: Callable[[jax.Array, jax.Array, jax.Array, Any], jax.Array],
    normalizer: float,
    policy: Policy | None,
    block_size: int,
    plan: Plan | None = None,
    segment_start: SegmentStart = "carried",
) -> GradientEstimator:
    """Builds an estimator from the functions of a segment and a way to choose lengths.

    Args:
      next_length: `next_length(rng_key, n, at_start, limit) -> int32`, the length of the n-th
        segment since `init`, before it is clipped to the end of the stream. `at_start`, bool, is
        whether the segment begins the stream; lengths above `limit` may be returned as `limit`.
      plan: as in `ChunkedEstimator`, its lengths those of `next_length`; None for an estimator that
        needs the whole sequence.
      segment_start: as for `artbp.artbp`.
    """
    check_policy(policy)
    if segment_start not in get_args(SegmentStart):
        raise ValueError(
            f"segment_start={segment_start!r}; expected 'carried', to start a segment with the "
            "carry of the one before it, or 'initial', to start it with the carry that init was "
            "given."
        )
    check_positive(normalizer=normalizer)
    normalizer = as_divisor(normalizer)
    check_positive(block_size=block_size, integer=True)

    def init(
        params: Any, carry: Any, *, rng_key: jax.Array, initial_carry: Any = None
    ) -> EstimatorState:
        check_function(cell=functions.cell, loss_fn=functions.loss_fn)
        check_params(params)
        scratch = ()
        if policy in (None, "dynamic"):
            params, carry = _tree.as_arrays(params), as_carry(carry)
            scratch = make_scratch(functions.cell, params, carry, block_size)
        return start(params, carry, rng_key, initial_carry, scratch=scratch)

    finish = functools.partial(_finish, normalizer, segment_start == "initial")

    @jax.jit
    def estimate_dynamic(params: Any, state: EstimatorState, stream: Stream) -> Result:
        axes = _devices.axes_of_rows(params, (state.carry, stream))
        params = _devices.on_each(params, axes)
        num_steps = jnp.asarray(stream.num_new, jnp.int32)
        position, is_beyond = clip_position(state.position, num_steps)
        state, n = state._replace(position=position), jnp.asarray(state.num_estimates)
        # One more than there is, so that a length that does not fit is seen.
        limit = num_steps if stream.ends else num_steps + np.int32(1)
        drawn = next_length(state.rng_key, n, position == 0, limit)
        length = jnp.minimum(drawn, num_steps - position)
        check_scratch(functions.cell, params, state.carry, state.scratch, block_size)
        x, target = _tree.index((stream.xs, stream.targets), 0)
        functions_of, constants = hoist_functions(functions, params, state.carry, x, target)
        warn_of_unused_params(*functions[:2], params, state.carry, x, target)
        kernel = lockstep(functools.partial(segment_gradient, functions_of, block_size))
        carries = (state.carry, state.initial_carry)
        first = stream.history + position
        result = kernel(constants, params, *carries, state.scratch, stream, first, length)
        is_wrong = is_beyond
        if not stream.ends:  # a segment that is cut off must not pass for one
            is_cut = drawn > length
            is_wrong |= is_cut
        sums = result.grads, result.loss_sum, result.counted
        grads, loss_sum, counted = _devices.total(sums, axes)
        result = result._replace(
            grads=_tree.nan_where(is_wrong, grads),
            loss_sum=_tree.nan_where(is_beyond, loss_sum),
            counted=counted,
        )
        return finish(params, result, state, stream.ends, num_steps, length)

    @functools.cache
    def host_kernel(policy: Policy) -> Callable[..., SegmentResult]:
        return static_lengths.segment_kernel(functions, static_lengths.PIECES[policy], block_size)

    @jax.jit
    def draw(rng_key: jax.Array, first: Any, at_start: Any, limit: Any) -> jax.Array:
        return draw_ahead(lambda n: next_length(rng_key, n, at_start, limit), first, _AHEAD)

    @functools.lru_cache(maxsize=4)
    def lengths_ahead(
        key_bytes: bytes, key_like: Any, first: int, at_start: bool, limit: int
    ) -> np.ndarray:
        """The lengths of segments first, …, first + _AHEAD − 1, drawn ahead of need."""
        shape, dtype, impl = key_like
        data = np.frombuffer(key_bytes, dtype).reshape(shape)
        with jax.default_device(_host_device()):
            rng_key = jnp.asarray(data)
            if impl is not None:
                rng_key = jax.random.wrap_key_data(rng_key, impl=impl)
            return np.asarray(draw(rng_key, np.int32(first), at_start, np.int32(limit)))

    def from_host(policy: Policy, params: Any, state: EstimatorState, stream: Stream) -> Result:
        # Position and counts stay NumPy scalars: reading them never waits for the device.
        position, n = np.int32(state.position), np.int32(state.num_estimates)
        num_steps = int(stream.num_new)
        num_run = np.int32(state.num_steps)
        state = state._replace(position=position, num_estimates=n, num_steps=num_run)
        first = int(n) - int(n) % _AHEAD
        key = _key_bytes(state.rng_key)
        limit = num_steps if stream.ends else num_steps + 1
        lengths = lengths_ahead(*key, first, bool(position == 0), limit)
        drawn = int(lengths[int(n) - first])
        length = min(drawn, num_steps - int(position))
        if length < drawn and not stream.ends:
            raise ValueError(
                f"Segment {int(n)} has {drawn} steps, but the stream has {length} steps left, and "
                "goes on (ends=False). Hand over streams that `artbp.stream_chunks` makes for this "
                "state."
            )
        carries, kernel = (state.carry, state.initial_carry), host_kernel(policy)
        stream = jax.device_put(stream)  # NumPy arrays: once, and not for each piece of the segment
        start = stream.history + int(position)
        result = kernel(params, *carries, state.scratch, stream, start, length)
        of_stream = stream.ends, np.int32(num_steps)
        return finish(params, result, state, *of_stream, np.int32(length))

    def estimate(params: Any, state: EstimatorState, stream: Stream) -> Result:
        check_params(params)
        check_state(state)
        check_one_run(state)
        check_not_differentiated(params, state, stream)
        params = _tree.as_arrays(params)
        check_stream(stream)
        check_chunk(stream, plan)
        check_resets(state.initial_carry, stream.resets)
        check_position(state, stream)
        chosen = resolve_policy(policy, traced=_tree.is_traced((params, state, stream)))
        if chosen == "dynamic":
            return estimate_dynamic(params, state, stream)
        return from_host(chosen, params, state, stream)

    return make_estimator(init, estimate, plan)


def _finish(
    normalizer: float,
    starts_anew: bool,
    params: Any,
    result: SegmentResult,
    state: EstimatorState,
    ends: bool,
    num_steps: Any,
    length: Any,
) -> Result:
    """What `estimate` returns, from the result of a segment of a stream of `num_steps` steps."""
    position = (state.position + length) % num_steps
    at_end = jnp.asarray(position == 0)
    begins = (at_end & ends) | starts_anew
    carries = result.carry, state.first_carry
    grads, carry = _normalize(normalizer, result.grads, params, *carries, begins)
    new_state = state._replace(
        position=position,
        num_estimates=state.num_estimates + np.int32(1),
        num_steps=state.num_steps + length,
        carry=carry,
        scratch=result.scratch,
    )
    info = EstimatorInfo(
        loss_sum=result.loss_sum,
        num_losses=result.counted.num_losses,
        length=jnp.asarray(length, jnp.int32),
        max_compensation=result.max_compensation,
        max_weight=result.max_weight,
        end_of_stream=at_end,
        extra=result.counted.extra,
    )
    return grads, new_state, info


# On the host-driven path this is one program instead of one for each leaf.
@jax.jit
def _normalize(
    normalizer: Any, grads: Any, params: Any, carry: Any, first_carry: Any, begins: jax.Array
) -> tuple[Any, Any]:
    """(the gradients divided by `normalizer`, like params; the carry that enters next)."""
    # The sum itself may be too large for a narrow dtype.
    grads = jax.tree.map(lambda grad: grad / normalizer, grads)
    return _tree.astype(grads, params), _tree.replace(begins, first_carry, carry)


def _host_device() -> jax.Device:
    """The CPU if JAX has one, so that draws wait for no accelerator; else the first device."""
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
