"""The type of every gradient estimator: two pure functions in a NamedTuple."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from artbp import _tree
from artbp._checks import check_key
from artbp.stream import Stream
from artbp.unrolls.arguments import as_carry, complete_initial_carry
from artbp.unrolls.checks import check_carry_from_params, check_finite, check_params


class EstimatorState(NamedTuple):
    """What the next estimate needs.

    Attributes:
      position: int32, the time step of the stream that comes next. If it is beyond the stream that
        `estimate` is given, `estimate` raises a ValueError. In a jitted call, which cannot raise,
        gradient and loss are NaN.
      num_estimates: int32, how many estimates have been made since `init`.
      num_steps: int32, how many time steps have been run since `init`, over all passes.
        `artbp.scale_by_time_step_schedule` takes it.
      carry: the carry that enters the next step.
      first_carry: the carry at the beginning of every pass, as it was given to `init`; None in
        place of lasting leaves (see `GradientEstimator`).
      initial_carry: the carry after a reset; None in place of lasting leaves.
      rng_key: the key of all random draws. Segment i is drawn with `fold_in(rng_key, i)`, so
        boundaries never depend on data or parameters.
      scratch: buffers of the kernel, never read before they are written. A jitted update to which
        the state is donated reuses them in place. A checkpoint may leave them out.
      inner_state: what else this estimator needs, such as RTRL's sensitivities or the carries of a
        window; () where there is nothing. It belongs in a checkpoint, unlike scratch.
    """

    position: jax.Array | np.integer
    num_estimates: jax.Array | np.integer
    num_steps: jax.Array | np.integer
    carry: Any
    first_carry: Any
    initial_carry: Any
    rng_key: jax.Array
    scratch: Any
    inner_state: Any = ()


class EstimatorInfo(NamedTuple):
    """What a person may want to plot about one estimate; all scalars.

    Attributes:
      loss_sum: summed losses, not normalised.
      num_losses: int32, how many losses were summed: steps times rows, without those that are
        masked or have weight 0. loss_sum / num_losses is the mean loss. With a mask of weights it
        is the mean of weight times loss.
      length: int32, the number of time steps of this estimate: of a segment, of a window, or
        `update_every`.
      max_compensation: the largest factor 1/(1 − c) on the backward flow; 1 where nothing is
        compensated (BPTT, TBPTT, `compensate=False`).
      max_weight: the product of the factors: the weight of the loss of the last step in the
        gradient through the first step. For ARTBP it is 1/S(length − 1).
      end_of_stream: bool, whether this estimate ended the stream. The next one begins the
        stream again, with the carry that `init` was given. If `Stream.ends` is False, it begins the
        next stream instead, and the carry goes on.
      extra: further scalars of this estimator, by name; see its docstring. And the sums of what
        `loss_fn` returns beside the losses, masked or weighted as the losses are.
    """

    loss_sum: jax.Array
    num_losses: jax.Array
    length: jax.Array
    max_compensation: jax.Array
    max_weight: jax.Array
    end_of_stream: jax.Array
    extra: dict[str, jax.Array] = {}  # noqa: RUF012  # read, never written


NEEDS_WHOLE_SEQUENCE = (
    "This estimator needs the whole sequence in one stream, without history. Estimators that take "
    "a sequence in chunks: tbptt without a drawn offset, artbp, random_truncation, unbiased_tbptt, "
    "awd_lstm_bptt, rtrl, diagonal_rtrl, snap1, uoro, forward_gradient, truncated_es, pes, gpes, "
    "nres."
)


class Plan(NamedTuple):
    """The steps of a sequence that each estimate needs. They never depend on data.

    Attributes:
      lengths: the number of steps of every estimate, or a function
        `lengths(rng_key, n, limit) -> int32` that gives it for estimate number n since `init`; it
        may return `limit` for any number above it. The last estimate of a sequence may have fewer.
      history: the number of steps before those of the estimate that it may read.
    """

    lengths: int | Callable[[jax.Array, jax.Array, Any], jax.Array]
    history: int = 0


def draw_ahead(length_of: Callable[[jax.Array], jax.Array], first: Any, count: int) -> jax.Array:
    """The lengths `length_of(n)` of the estimates n = first, …, first + count − 1, int32 `[count]`.

    They are drawn one by one, as each estimate draws its own: under `jax.vmap`, keys of some
    implementations give other numbers.
    """
    return lax.map(length_of, first + jnp.arange(count, dtype=jnp.int32))


Result = tuple[Any, EstimatorState, EstimatorInfo]


class GradientEstimator(NamedTuple):
    """A gradient estimator, in the manner of `optax.GradientTransformation`.

    Attributes:
      init: `init(params, carry, *, rng_key, initial_carry=None) -> state`. Every pass of a stream
        begins with `carry`. `initial_carry` is the carry after a reset; None means zeros (typed
        keys keep the value that they have in `carry`; one raw key is refused where a reset
        would replace it), as in `artbp.unroll`. So one pass is
        `artbp.unroll(cell, params, carry, xs, resets=resets, initial_carry=initial_carry)`. None in
        place of a leaf or of a subtree makes its leaves lasting: resets and the end of a pass leave
        them as they are, as for `initial_carry=(zeros, None)` and the carry `(hidden, key)`. (Put a
        carry that is a single lasting leaf into a tuple: None alone means zeros.)
      estimate: `estimate(params, state, stream) -> (grads, state, info)`, one segment. With frozen
        params, the gradients of one pass of the stream sum to the estimate of the gradient of
        the whole sequence. There is a gradient with respect to `params` only, and `jax.grad` cannot
        go through `estimate`: call an encoder of the inputs in the cell. There are no ys: `loss_fn`
        may return values beside the losses, whose sums are in `info.extra`. The carry after the
        segment is `state.carry`; after the last segment of a stream with `ends=True` it is the
        first carry.
    """

    init: Callable[..., EstimatorState]
    estimate: Callable[..., Result]


class ChunkedEstimator(GradientEstimator):
    """A gradient estimator that also takes one sequence as several streams.

    See `artbp.stream_chunks`, which makes these streams.

    Attributes:
      plan: the steps that its estimates need.
    """

    plan: Plan

    def __new__(cls, init: Any, estimate: Any, plan: Plan) -> "ChunkedEstimator":
        estimator = super().__new__(cls, init, estimate)
        estimator.plan = plan
        return estimator

    def _replace(self, /, *, plan: Any = None, **changed: Any) -> "ChunkedEstimator":
        functions = GradientEstimator(*self)._replace(**changed)
        return ChunkedEstimator(*functions, self.plan if plan is None else plan)

    def __getnewargs__(self) -> tuple[Any, ...]:  # for copy and pickle
        return *self, self.plan


def make_estimator(init: Any, estimate: Any, plan: Plan | None) -> GradientEstimator:
    """Returns a `ChunkedEstimator`, or a `GradientEstimator` if there is no plan."""
    if plan is None:
        return GradientEstimator(init, estimate)
    return ChunkedEstimator(init, estimate, plan)


def check_chunk(stream: Stream, plan: Plan | None) -> None:
    """Raises ValueError if a stream with `ends=False` would cut an estimate of the plan short."""
    if stream.ends and (plan is not None or not stream.history):
        return
    if plan is None:
        raise ValueError(f"Stream(ends={stream.ends}, …): {NEEDS_WHOLE_SEQUENCE}")
    if stream.history < plan.history:
        raise ValueError(
            f"Stream(ends=False) has history={stream.history}, but this estimator reads up to "
            f"{plan.history} older steps. artbp.stream_chunks makes streams that have them."
        )
    if not isinstance(plan.lengths, int):
        if stream.stop is None:
            raise ValueError(
                "Stream(ends=False) has no stop, but an estimate takes a random number of steps, "
                "so the last one would be cut short. artbp.stream_chunks turns the chunks of a "
                "loader into streams that fit."
            )
        return
    if stream.stop is not None:
        raise ValueError(
            "Stream(ends=False) has a stop, which serves random segments. Where an estimate takes "
            f"{plan.lengths} steps, hand over arrays of whole windows instead."
        )
    if stream.num_new % plan.lengths:
        raise ValueError(
            f"Stream(ends=False) has {stream.num_new} new steps, but an estimate takes "
            f"{plan.lengths} steps, so the last one would be cut short. artbp.stream_chunks turns "
            "the chunks of a loader into streams that fit."
        )


def join_extra(own: dict[str, jax.Array], of_losses: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """What an estimator and the loss function have for `info.extra`.

    Raises:
      ValueError: both use the same name.
    """
    shared = sorted(own.keys() & of_losses.keys())
    if shared:
        raise ValueError(
            f"loss_fn returns values named {shared}, which this estimator has in info.extra. Use "
            "other names."
        )
    return own | of_losses


def check_not_differentiated(params: Any, state: EstimatorState, stream: Stream) -> None:
    """Raises TypeError if `jax.grad` or `jax.vjp` goes through `estimate`.

    It is not seen if a function within is jitted; JAX then says that linearization failed, or
    differentiates the steps of one estimate. Forward mode (`jax.jvp`) works.
    """
    arguments = {"params": params, "state": state, "stream": stream}
    for path, leaf in jax.tree_util.tree_leaves_with_path(arguments):
        if _tree.is_linearized(leaf):
            name, *rest = path
            raise TypeError(
                f"jax.grad or jax.vjp differentiates estimate with respect to {name.key}"
                f"{jax.tree_util.keystr(tuple(rest))}. But estimate returns the gradient by params "
                "already, and cannot be differentiated: call it without jax.grad, grads, state, "
                "info = estimator.estimate(params, state, stream). Put everything that is to be "
                "trained into params: call an encoder of the inputs in the cell, and a readout in "
                "loss_fn. artbp.unroll is a differentiable function of all its arguments."
            )


def check_estimator(estimator: Any) -> None:
    """Raises TypeError unless `estimator` is a `GradientEstimator`."""
    if not isinstance(estimator, GradientEstimator):
        raise TypeError(
            f"estimator is {estimator!r}; expected a GradientEstimator, such as "
            "artbp.tbptt(cell, loss_fn, truncation_length=50)."
        )


def check_state(state: Any) -> None:
    """Raises TypeError unless `state` is an `EstimatorState`."""
    if not isinstance(state, EstimatorState):
        raise TypeError(
            f"state is of type {type(state).__name__}; expected the EstimatorState that "
            "estimator.init or the last estimate returned. Call estimate(params, state, stream)."
        )


def check_one_run(state: EstimatorState, remedy: str = "Call this in jax.vmap over them.") -> None:
    """Raises ValueError if the state is that of several runs, whose positions are an array."""
    if np.ndim(state.position):
        raise ValueError(
            f"The state is that of several runs: its position has shape {np.shape(state.position)};"
            " expected that of one run, such as jax.tree.map(lambda leaf: leaf[0], state). "
            f"{remedy}"
        )


def check_position(state: EstimatorState, stream: Stream) -> None:
    """Raises ValueError if the state is known to stand beyond the steps of the stream.

    In a traced call it is not known. The estimate is then made NaN, see `clip_position`.
    """
    if isinstance(state.position, jax.core.Tracer) or isinstance(stream.num_new, jax.core.Tracer):
        return
    position, num_steps = int(np.asarray(state.position).max()), int(stream.num_new)
    if position >= num_steps:
        raise ValueError(
            f"The state stands at step {position}, beyond this stream of {num_steps} steps. Go on "
            "with the stream that it was made on, or start with init."
        )


def clip_position(position: Any, num_steps: Any) -> tuple[jax.Array, jax.Array]:
    """Returns (the position, clipped to the last step of the stream; whether it was beyond it).

    Kernels need a step to run. The caller makes the result NaN where the position was beyond.
    """
    position = jnp.asarray(position)
    clipped = jnp.minimum(position, jnp.asarray(num_steps, position.dtype) - np.int32(1))
    return clipped, clipped != position


def check_init(params: Any, carry: Any, rng_key: jax.Array, initial_carry: Any) -> Any:
    """Checks the arguments of `init`; returns the carry as JAX arrays.

    Raises:
      TypeError, ValueError: as `start`. The values of traced arrays are not checked.
    """
    check_params(params)
    check_finite(params)
    check_key(rng_key)
    carry = as_carry(carry)
    check_carry_from_params(params, carry=carry, initial_carry=initial_carry)
    return carry


def start(
    params: Any,
    carry: Any,
    rng_key: jax.Array,
    initial_carry: Any,
    *,
    scratch: Any = (),
    inner_state: Any = (),
) -> EstimatorState:
    """The state at the beginning of a stream.

    Raises:
      TypeError, ValueError: params that are not floats, or not finite; no key; an initial carry of
        another type than the carry.
    """
    carry = check_init(params, carry, rng_key, initial_carry)
    initial_carry, zero = complete_initial_carry(carry, initial_carry), jnp.zeros((), jnp.int32)
    first_carry = _tree.where_given(initial_carry, carry)
    # Copies, so that a donated state never holds one buffer twice nor one of the caller's.
    copies = jax.tree.map(jnp.copy, (zero, zero, zero, carry, first_carry, initial_carry, rng_key))
    return EstimatorState(*copies, scratch=scratch, inner_state=inner_state)
