"""Unbiased truncated BPTT: an update every K steps, backpropagated over a random distance."""

from collections.abc import Callable
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np

from artbp import _tree
from artbp._checks import check_positive
from artbp.estimators.base import EstimatorState, GradientEstimator, Plan, join_extra
from artbp.estimators.stepwise import Advance, Steps, stepwise
from artbp.truncation.base import TruncationLaw, check_law
from artbp.truncation.deterministic import check_length
from artbp.unrolls.batching import lockstep
from artbp.unrolls.checks import Cell
from artbp.unrolls.closure import hoist_functions, hoist_gates
from artbp.unrolls.functions import Functions
from artbp.unrolls.look_back import (
    Sizes,
    Stored,
    look_back_gradient,
    make_stored,
    oldest_step,
    predict,
    store_carry,
)
from artbp.unrolls.readout import LossFn

Mode = Literal["stored", "reforward"]
Critic = Callable[[Any, Any], Any]

# The default of `stored_windows` is the smallest number of older windows that a look-back exceeds
# with at most this probability, up to a limit.
_RARE, _MOST_RESIDUALS = 1 / 64, 16
# The same for `stored_carries`. A carry is small compared with the residuals of a window.
_VERY_RARE, _MOST_CARRIES = 1e-12, 256


def unbiased_tbptt(
    cell: Cell,
    loss_fn: LossFn,
    law: TruncationLaw,
    *,
    truncation_length: int,
    mode: Mode = "stored",
    normalizer: float = 1.0,
    stored_windows: int | None = None,
    stored_carries: int | None = None,
    critic: Critic | None = None,
) -> GradientEstimator:
    """Truncated BPTT without its bias: an update every K steps, with a look-back of random length.

    The stream is cut into windows of K steps. An estimate runs one window, n, and backpropagates
    its losses through a random number A of windows, window n included. A ~ `law` is drawn before
    the window is run::

        g, δ = 0, 0
        for window in n, n − 1, ..., n − A + 1:      # A windows, the new one included
            for t backward in window:
                δ = ∂ℓ_t/∂s_t + (∂F_{t+1}/∂s_t)ᵀ δ         # ℓ_t of window n only
                g += (∂F_t/∂θ)ᵀ δ
            δ = δ / (1 − c(j))                       # at the j-th edge back, j = 1, 2, …

    An edge is the border between two windows. A look-back that has come to edge j crosses it with
    probability 1 − c(j). The factor compensates for this: with frozen params, the expectation of
    the summed gradients of a pass is the gradient of full BPTT. Every update has K losses a row,
    and a long look-back delays no update; both differ from `artbp.artbp`. The expected work of an
    estimate is one window forward and Σ_{j≥0} S(j) windows backward, which is 1/c windows for a
    geometric law with hazard c.

    Special cases: `truncation.fixed(1)` is `artbp.tbptt` and `truncation.never()` is full BPTT.
    With frozen params, `truncation.fixed(m)` is `artbp.tbptt_k1_k2` with k1 = K and k2 = m·K,
    apart from a last window that is shorter than K.

    Older windows ran with older params. The modes differ in what they differentiate there. With
    frozen params they give the same gradient.

    - "stored": older windows are differentiated at the residuals of their forward pass, with the
      present weights in the backward products. No forward pass is repeated for the last
      `stored_windows` older windows, whose residuals are stored. Windows before these are run
      again, as in "reforward".
    - "reforward": each older window is run again with the present params, from the carry that
      entered it. It costs one more forward pass for each older window and stores carries only.

    No look-back is cut off: beyond `stored_carries` older windows, windows are run again from a
    carry further back. This is slow, so it should be rare. Danger: the streams of
    `artbp.stream_chunks` hold the steps of `stored_carries` older windows only. If a look-back
    needs a step from before that, the gradient is NaN. For each estimate this has the probability
    P(A > stored_carries + 1) = `law.survival(stored_carries + 1)`. Choose more `stored_carries`
    than the default there if the law has a long tail and the run is long.

    A critic can reduce the variance of the look-backs. It is a function that predicts, at the end
    of a window, the derivative of all later losses by the carry there. This prediction is
    backpropagated through the window at once. After the next window has been run, the target of the
    prediction is known: the derivative of that window's losses and of the prediction at its end.
    Only the difference is backpropagated further, at random, with the same compensation::

        δ = v(s_n)                        # behind window n; 0 at the end of the sequence
        δ, g = back through window n
        e = δ − v(s_{n−1})                # as it was predicted when window n − 1 was run
        e, g = back through windows n − 1, …, n − A + 1, over their edges as above

    With frozen params the expectation is the gradient of full BPTT whatever the critic predicts:
    the errors telescope. A critic that is right leaves no variance; one that is wrong adds to it.
    With `truncation.fixed(1)`, which never looks back, it is `artbp.tbptt` with a critic at the
    edge, and biased by the critic's error. The gradient by the critic's params is that of
    ½ ‖v(s_{n−1}) − δ‖² over rows and units, with δ as above held fixed. It is also divided by
    `normalizer`, so the critic often needs a learning rate of its own (`optax.multi_transform`).

    `info.extra` holds `look_back` (A) and, with a critic, the sums over rows and units of
    ‖δ − v‖², `critic_error`, and of ‖δ‖², `critic_target`, at the first edge of this estimate. The
    target contains the critic's own next prediction, so a small error does not prove that variance
    is saved.

    Args:
      cell, loss_fn, normalizer: as for `artbp.artbp`.
      law: the distribution of A. Its unit is a window, not a step: P(A > j) = `law.survival(j)`.
        At the beginning of the stream there is nothing further back. The look-back ends there, and
        no gradient is lost.
      truncation_length: K, the steps of a window. The last window of a stream may be shorter.
      mode: see above.
      stored_windows: in mode "stored", the number of older windows whose residuals are stored.
        Default: the smallest number that a look-back exceeds with probability at most 1/64, but
        not above 16. In mode "reforward" it has no effect.
      stored_carries: the number of older windows of which the carry that entered them is stored:
        at least `stored_windows` in mode "stored", and rounded up to an even number. Twice as many
        carries are stored: those of the last windows, and others further back. Default: the
        smallest number that a look-back exceeds with probability at most 1e-12, but between 2 and
        256.
      critic: `critic(params, carry) -> like carry`, the predicted derivative of the later losses,
        summed as `loss_fn` and mask say, by each entry of the carry, as `jax.grad` defines it (for
        integers and keys, which have none, any value of the same shape). It should read params of
        its own, such as `params["critic"]`, since any that it shares with the cell also get its
        gradient. None: no critic.

    Raises:
      TypeError: `law` is no truncation law.
      ValueError: an unknown mode; numbers that are not integers ≥ 1; a traced hazard without
        stored_windows and stored_carries; from `estimate`, a critic that
        returns other shapes than those of the carry.

    Source: ours. It applies the gate of ARTBP (arXiv 1705.08209) at the edges of TBPTT's windows.
    The estimate of each window is a randomised telescope (arXiv 1905.07006), also known as Russian
    roulette. Critics at the edge of a window: Jaderberg et al., "Decoupled Neural Interfaces using
    Synthetic Gradients" (arXiv 1608.05343); as a control variate: ours.
    """
    check_law(law)
    length = check_length(truncation_length, "truncation_length")
    if mode not in get_args(Mode):
        known = ", ".join(map(repr, get_args(Mode)))
        raise ValueError(f"mode={mode!r}; expected one of {known}.")
    if stored_windows is None:
        stored_windows = default_stored_windows(law)
    if stored_carries is None:
        stored_carries = max(2, _rarely_exceeded(law, _VERY_RARE, _MOST_CARRIES))
    check_positive(stored_windows=stored_windows, stored_carries=stored_carries, integer=True)
    num_stored = stored_windows if mode == "stored" else 0
    num_carries = max(stored_carries, num_stored)
    sizes = Sizes(length, num_stored, num_carries + num_carries % 2)
    functions = Functions(cell, loss_fn, critic=critic)

    def begin(params: Any, carry: Any) -> Stored:
        return make_stored(cell, params, carry, sizes, has_critic=critic is not None)

    def advance(
        steps: Steps, params: Any, state: EstimatorState, end: jax.Array, rng_key: jax.Array
    ) -> Advance:
        del rng_key
        stream, stored, position = steps.stream, state.inner_state, jnp.asarray(state.position)
        most = stored.num_windows + 1
        look_back = law.length_of(state.rng_key, state.num_estimates, most)
        look_back = jnp.minimum(look_back, most)  # whatever a law does with the limit
        x, target = _tree.index((stream.xs, stream.targets), 0)
        functions_of, constants = hoist_functions(functions, params, state.carry, x, target)
        gates_of, gate_constants = hoist_gates(law.compensation)

        def kernel(gate_constants: Any, *arguments: Any, **options: Any) -> Any:
            gate_at = gates_of(gate_constants)
            return look_back_gradient(functions_of, gate_at, sizes, *arguments, **options)

        carries = state.carry, state.initial_carry
        place = stream, position, end - position, look_back
        arguments = gate_constants, constants, params, *carries, stored, *place
        result, critique = lockstep(kernel)(*arguments)
        grads, counted = result.grads, result.counted
        if critic is not None:
            is_edge = stored.num_windows > 0
            learning, sums = _learn(critic, params, state.carry, stored, critique.target, is_edge)
            grads = _tree.accumulate(grads, learning)
            counted = counted._replace(extra=join_extra(sums, counted.extra))
            stored = stored._replace(predicted=critique.predicted)
        # The result of a look-back to steps that this stream does not hold is not a gradient.
        is_missing = oldest_step(stored, position, look_back, sizes) < 0
        stored = store_carry(stored._replace(residuals=result.scratch), state.carry, sizes)
        if stream.ends:
            is_over = end == stream.history + stream.num_new
            stored = stored._replace(num_windows=jnp.where(is_over, 0, stored.num_windows))
        return Advance(
            grads=_tree.nan_where(is_missing, grads),
            carry=result.carry,
            inner_state=stored,
            loss_sum=result.loss_sum,
            counted=counted,
            extra={"look_back": look_back},
            max_compensation=result.max_compensation,
            max_weight=result.max_weight,
        )

    plan = Plan(length, history=length * sizes.num_carries)
    return stepwise(
        cell,
        loss_fn,
        length,
        begin,
        advance,
        normalizer,
        resets_at_end=False,
        plan=plan,
        critic=critic,
    )


def _learn(
    critic: Critic, params: Any, carry: Any, stored: Stored, target: Any, is_edge: jax.Array
) -> tuple[Any, dict[str, jax.Array]]:
    """(the gradient by the critic's params, the sums for `info.extra`), 0 unless at an edge."""
    weight = jnp.where(is_edge, 1.0, 0.0)

    def squares(predicted: Any) -> jax.Array:
        wide = jnp.result_type(float)
        errors = jax.tree.map(
            lambda p, t: jnp.sum(jnp.abs(p - t) ** 2, dtype=wide), predicted, target
        )
        return sum(jax.tree.leaves(errors), start=jnp.zeros(())) * weight

    def loss(params: Any) -> jax.Array:
        return squares(predict(critic, params, carry)) / 2

    sums = {"critic_error": squares(stored.predicted)}
    sums["critic_target"] = squares(_tree.zeros_like(stored.predicted))
    return jax.grad(loss)(params), sums


def default_stored_windows(law: TruncationLaw) -> int:
    """The default of `stored_windows` of `unbiased_tbptt`."""
    return _rarely_exceeded(law, _RARE, _MOST_RESIDUALS)


def _rarely_exceeded(law: TruncationLaw, chance: float, most: int) -> int:
    """The smallest number of older windows, up to `most`, that is exceeded with this chance."""
    try:
        survival = law.survival(np.arange(1, most + 1))  # P(A > j), where A includes the new window
    except jax.errors.TracerArrayConversionError as error:
        raise ValueError(
            "The hazard of the law is traced, so the numbers of windows to store are not known. "
            "Expected both stored_windows and stored_carries, such as 4 and 64."
        ) from error
    rare = np.flatnonzero(survival <= chance)
    return max(1, int(rare[0])) if rare.size else most
