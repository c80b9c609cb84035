"""Many training runs in one program, each with its own key, params and position in the stream.

`jax.vmap` over `estimate` runs in lockstep: every run waits for the longest segment among them.
Here each run goes on to its own next segment, and the whole training is one compiled loop.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from artbp import _tree
from artbp._checks import as_divisor, check_flag, check_positive
from artbp._draws import draws_alike_under_vmap, vmap_changes_draws
from artbp.contrib.block_schedule import RunsSegment, advance, begin
from artbp.contrib.runs_block import RunsBlock
from artbp.estimators.base import EstimatorState, check_chunk, check_position, clip_position
from artbp.stream import Stream
from artbp.truncation.base import TruncationLaw, check_law
from artbp.unrolls.arguments import complete_initial_carry
from artbp.unrolls.checks import (
    Cell,
    check_arrays,
    check_params,
    check_resets,
    check_stream,
)
from artbp.unrolls.first_step import check_step
from artbp.unrolls.functions import Functions
from artbp.unrolls.readout import LossFn, nothing_counted

# Lengths drawn ahead for a run: drawing a few costs as much as drawing many.
_AHEAD = 32

# Iterations for which carries are kept, in units of the block size. A segment may have half as many
# blocks, that is 4 · block_size² steps, before a part of it is run a third time.
_KEPT = 8


class IndependentRuns(NamedTuple):
    """A trainer of many runs; made by `independent_runs`.

    Attributes:
      init: `init(carry, rng_keys, initial_carry=None) -> state`, from the carries of one run (see
        `GradientEstimator`) and keys `[R]`. The state is an `EstimatorState` of arrays `[R, ...]`
        without scratch.
      run: `run(params, aux, state, stream) -> (params, aux, state)`. Params and aux are trees of
        arrays `[R, ...]`; the state stands between two segments in every run. To be jitted.
    """

    init: Callable[..., EstimatorState]
    run: Callable[..., tuple[Any, Any, EstimatorState]]


def by_run(update: Callable[..., tuple[Any, Any]]) -> Callable[..., tuple[Any, Any]]:
    """Turns `update(params, aux, grads, info) -> (params, aux)` of one run into one of all runs."""

    def update_runs(params: Any, aux: Any, grads: Any, info: Any, finished: Any) -> Any:
        return _tree.select(finished, jax.vmap(update)(params, aux, grads, info), (params, aux))

    return update_runs


def independent_runs(
    cell: Cell,
    loss_fn: LossFn,
    law: TruncationLaw,
    update: Callable[..., tuple[Any, Any]],
    running: Callable[[Any, Any], jax.Array],
    *,
    compensate: bool = True,
    normalizer: float = 1.0,
    block_size: int = 16,
    stream_axes: Any = None,
) -> IndependentRuns:
    """Trains many runs in one program; none waits for the segments of the others.

    For each run by itself, `run` means::

        while running(params, aux):
            grads, state, info = estimator.estimate(params, state, stream)
            params, aux = update(params, aux, grads, info)

    with `estimator = artbp.artbp(cell, loss_fn, law, ...)`, or `artbp.tbptt` where `law` is
    `truncation.fixed(K)`: the same segments from the same keys, and to round-off the same numbers.
    Runs never mix: one that diverges leaves the others as they are.

    Use it for many runs of a small model with random lengths. A run does useful work in about half
    of the steps (0.45 of them at L0 = 16, α = 4, block_size 16), however many runs there are. In
    lockstep that share is mean length / longest length, which falls with the number of runs. Do not
    use it with fixed lengths, where lockstep wastes nothing, or where one run already fills the
    machine.

    Args:
      cell, loss_fn, law, compensate, normalizer: as for `artbp.artbp`.
      update: `update(params, aux, grads, info, finished) -> (params, aux)`, pure, on all runs at
        once. `finished`, bool `[R]`, are the runs whose segment ended in this iteration; the others
        have meaningless gradients and must be left as they are. `by_run` makes one from the
        update of a single run, and selects over params and aux; write your own where aux is
        large. `aux` is yours: optimiser state, counters, metrics.
      running: `running(params, aux) -> bool [R]`, between segments; a False run stops for good.
      block_size: steps that all runs take before they wait for each other: the mean length or a
        little less. It also sets the memory: 9 · block_size carries of every run.
      stream_axes: the axes of the stream over runs as in `jax.vmap`'s `in_axes`, for example
        `Stream(0, num_steps=T)` for inputs `[R, T, ...]`. None: all runs share the stream. All
        runs share `stop`.

    Returns:
      An `IndependentRuns`. Danger! Under `jax.vmap`, `run` selects over its buffers in every
      iteration. Make the mapped axis a part of the runs instead.

    Raises:
      TypeError: law is not a `TruncationLaw`; from `run`: params that are not floats.
      ValueError: a bad option; from `run`: as `estimate` of `artbp.artbp`; a cell or loss that
        draws from keys other than threefry's. If `run` is jitted, the params of a run that stands
        beyond the stream are NaN.

    Source: Tallec & Ollivier, arXiv 1705.08209.
    """
    check_law(law)
    check_flag(compensate=compensate)
    check_positive(normalizer=normalizer)
    normalizer = as_divisor(normalizer)
    check_positive(block_size=block_size, integer=True)
    functions = Functions(cell, loss_fn, law.compensation if compensate else None)

    def init(carry: Any, rng_keys: jax.Array, initial_carry: Any = None) -> EstimatorState:
        keys = jnp.shape(rng_keys) if _tree.is_key(rng_keys) else jnp.shape(rng_keys)[:-1]
        if len(keys) != 1 or not keys[0]:
            raise ValueError(
                f"rng_keys has shape {jnp.shape(rng_keys)}; expected one key for each run, [R], as "
                "from jax.random.split(rng_key, R)."
            )
        num_runs = keys[0]
        carry = _tree.as_arrays(carry)
        initial_carry = complete_initial_carry(carry, initial_carry)
        carries = carry, _tree.where_given(initial_carry, carry), initial_carry
        carries = _tree.repeat(carries, num_runs)
        zero = jnp.zeros((num_runs,), jnp.int32)
        # Copies, so that a donated state never holds one buffer twice nor one of the caller's.
        parts = jax.tree.map(jnp.copy, (zero, zero, zero, *carries, rng_keys))
        return EstimatorState(*parts, scratch=())

    def run(
        params: Any, aux: Any, state: EstimatorState, stream: Stream
    ) -> tuple[Any, Any, EstimatorState]:
        check_params(params)
        check_arrays(stream)
        check_chunk(stream, None)
        stream.check_stop()
        params, aux = _tree.as_arrays((params, aux))

        def check(params: Any, carry: Any, initial_carry: Any, stream: Stream) -> None:
            """The checks of `estimate`, on the shapes of one run."""
            check_stream(stream)
            check_resets(initial_carry, stream.resets)
            x, target = _tree.index((stream.xs, stream.targets), 0)
            y = check_step(cell, loss_fn, params, carry, x, target)
            of_cell = jax.make_jaxpr(cell)(params, carry, x)
            of_loss = jax.make_jaxpr(loss_fn)(params, y, target)
            if vmap_changes_draws(of_cell) or vmap_changes_draws(of_loss):
                raise ValueError(
                    "Cell or loss draws random numbers from keys that are not threefry's. The runs "
                    "go side by side under jax.vmap, where such keys draw other numbers in the "
                    "backward pass than in the forward pass. Use jax.random.key(seed, "
                    "impl='threefry2x32'), or put the noise itself into Stream.xs."
                )
            extra = nothing_counted(cell, loss_fn, params, carry, stream).extra
            if extra:
                raise ValueError(
                    f"loss_fn returns values beside the losses, {sorted(extra)}, which "
                    "independent_runs does not sum. Let loss_fn return the losses alone."
                )

        carries = state.carry, state.initial_carry
        jax.eval_shape(jax.vmap(check, (0, 0, 0, stream_axes)), params, *carries, stream)
        num_steps = jnp.asarray(stream.num_new, jnp.int32)
        check_position(state, stream)
        position, is_beyond = clip_position(state.position, num_steps)
        state, params = state._replace(position=position), _tree.nan_where(is_beyond, params)

        def draw(state: EstimatorState) -> tuple[jax.Array, jax.Array]:
            """Draws (first `[R]`, lengths `[n, R]` of segments first, …) as `artbp.artbp` does."""

            def length_of(given: tuple[jax.Array, jax.Array]) -> jax.Array:
                return law.length_of(*given, num_steps)

            first = jnp.asarray(state.num_estimates)
            segments = jnp.arange(_AHEAD, dtype=jnp.int32)[:, None] + first[None, :]
            # One axis: XLA's loops over two are slower.
            keys = jnp.concatenate([state.rng_key] * _AHEAD)
            drawn_for = keys, jnp.ravel(segments)
            if draws_alike_under_vmap(keys):
                lengths = jax.vmap(length_of)(drawn_for)
            else:
                lengths = lax.map(length_of, drawn_for)
            return first, jnp.reshape(lengths, segments.shape)

        def begin_next(params: Any, state: EstimatorState, plan: Any) -> RunsSegment:
            first, lengths = plan
            runs = jnp.arange(state.position.shape[0], dtype=jnp.int32)
            # Clipped, because a run at rest may have come to the end of its plan.
            length = lengths.at[state.num_estimates - first, runs].get(mode="clip")
            length = jnp.minimum(length, num_steps - state.position)
            return begin(params, state.carry, length, block_size)

        def normalize(grad: jax.Array, x: jax.Array) -> jax.Array:
            return (grad / normalizer).astype(x.dtype)

        def iteration(loop: tuple[Any, ...]) -> tuple[Any, ...]:
            params, aux, state, active, plan, segment, ring = loop
            data = stream, stream_axes, params, state.initial_carry
            start = jnp.asarray(state.position)
            block = RunsBlock(functions, *data, block_size, start, segment.info.length)
            segment, finished, ring = advance(block, segment, state.carry, active, ring)
            position = (state.position + segment.info.length) % num_steps
            end_of_stream = position == 0
            info = segment.info._replace(end_of_stream=end_of_stream)
            grads = jax.tree.map(normalize, segment.grads, params)
            params, aux = update(params, aux, grads, info, finished)
            next_carry = _tree.replace(end_of_stream, state.first_carry, segment.leaving)
            state = state._replace(
                position=jnp.where(finished, position, state.position),
                num_estimates=state.num_estimates + finished.astype(jnp.int32),
                num_steps=state.num_steps + jnp.where(finished, segment.info.length, 0),
                carry=_tree.select(finished, next_carry, state.carry),
            )
            active = running(params, aux)
            at_end_of_plan = active & (state.num_estimates - plan[0] >= _AHEAD)
            plan = lax.cond(jnp.any(at_end_of_plan), draw, lambda state: plan, state)
            segment = _tree.select(finished, begin_next(params, state, plan), segment)
            return params, aux, state, active, plan, segment, ring

        plan, active = draw(state), running(params, aux)
        ring = _tree.repeat(state.carry, _KEPT * block_size), jnp.zeros((), jnp.int32)
        loop = (params, aux, state, active, plan, begin_next(params, state, plan), ring)
        return lax.while_loop(lambda loop: jnp.any(loop[3]), iteration, loop)[:3]

    return IndependentRuns(init, run)
