"""Unbiased truncated BPTT on a fixed clock: windows of K steps that look back a random distance."""

from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from artbp import _tree
from artbp.estimators.base import EstimatorState, GradientEstimator, Plan
from artbp.estimators.stepwise import Advance, Steps, stepwise
from artbp.truncation.base import TruncationLaw, check_law
from artbp.truncation.deterministic import check_length
from artbp.unrolls import fused
from artbp.unrolls.arguments import Arguments
from artbp.unrolls.autodiff_recurrence import residuals_like
from artbp.unrolls.checks import Cell, check_positive
from artbp.unrolls.gate import cut_or_scale
from artbp.unrolls.readout import LossFn, read_out

Mode = Literal["stored", "reforward"]

# By default the residuals of so many older windows are stored that a look-back goes beyond them
# with at most this chance, and no more than so many.
_RARE, _MOST_RESIDUALS = 1 / 64, 16
# The same for the carries that entered older windows, which are small.
_VERY_RARE, _MOST_CARRIES = 1e-12, 64


class Stored(NamedTuple):
    """What is kept of the windows before the next one. W is their number since the pass began.

    Attributes:
      num_windows: W, int32.
      residuals: `[R, ...]`, of the last R windows, that of window n in slot n mod R.
      carries: `[C, ...]`, the carries that entered the last C windows, in slot n mod C.
      anchors: `[C, ...]`, the carries that entered windows 0, stride, 2·stride, ….
      stride: int32, a power of two; it doubles where the anchors are full.
    """

    num_windows: jax.Array
    residuals: Any
    carries: Any
    anchors: Any
    stride: jax.Array


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
) -> GradientEstimator:
    """Truncated BPTT without bias: an update every K steps, with a look-back of random length.

    The stream is cut into windows of K steps. An estimate is one window. With A ~ `law`, drawn
    before the window is run, it means::

        δ = 0
        for window in n, n − 1, ..., n − A + 1:      # A windows, the new one included
            for t backward in window:
                δ = ∂ℓ_t/∂s_t + (∂F_{t+1}/∂s_t)ᵀ δ         # losses of the new window only
                g += (∂F_t/∂θ)ᵀ δ
            δ = δ / (1 − c(j))                       # across the j-th edge back, j = 1, 2, …

    Edge j is crossed with probability 1 − c(j), so the factor makes the expectation, with frozen
    params, the gradient of full BPTT. Unlike `artbp.artbp`, every update has K losses a row, and a
    long look-back delays no update. The expected work is one window forward and Σ_j S(j), j ≥ 0,
    backward: for a geometric law with hazard c, 1/c windows backward.

    `truncation.fixed(1)` is `artbp.tbptt(K)`, `fixed(m)` is `artbp.tbptt_k1_k2(K, m·K)`, `never()`
    is full BPTT, by windows.

    Older windows ran with older params. The modes differ in what they differentiate there. With
    frozen params they give the same gradient.

    - "stored": each older window as it was run, from the residuals of its forward pass, with the
      present weights in the backward products. It costs no second forward pass and keeps the
      residuals of `stored_windows` windows. A window that is older is run again, as in "reforward".
    - "reforward": each older window is run again with the present params, from the carry that
      entered it. It costs one more forward pass for each older window and keeps carries only.

    No look-back is cut off: behind the stored carries, windows are run again from a carry further
    back. This takes long, so `stored_carries` should rarely be exceeded. Danger: a sequence handed
    over in chunks (`artbp.stream_chunks`) holds the steps of `stored_carries` older windows only;
    an estimate that looks back further is NaN.

    `info.extra` holds `look_back` (A).

    Args:
      cell, loss_fn, normalizer: as for `artbp.artbp`.
      law: of the number of windows A, as if a window were a step: P(A > j) = `law.survival(j)`. It
        never depends on data. At the beginning of the stream there is nothing further back, so the
        look-back ends there, which cuts nothing.
      truncation_length: K, steps of a window. The last window of a stream may be shorter.
      mode: see above.
      stored_windows: in mode "stored", the older windows whose residuals are kept. Default: as many
        as a look-back goes beyond with probability at most 1/64, at most 16.
      stored_carries: older windows whose first carry is kept, in two buffers of this size. Default:
        as many as a look-back goes beyond with probability 1e-12, between 2 and 64.

    Raises:
      TypeError: `law` is no truncation law.
      ValueError: an unknown mode; numbers that are not integers ≥ 1.

    Source: ours. It applies the gate of ARTBP (arXiv 1705.08209) to the edges of TBPTT's windows;
    the estimator of each window is a randomised telescope (arXiv 1905.07006), or Russian roulette.
    """
    check_law(law)
    length = check_length(truncation_length, "truncation_length")
    if mode not in get_args(Mode):
        raise ValueError(f"mode={mode!r}; expected one of {', '.join(get_args(Mode))}.")
    if stored_windows is None:
        stored_windows = _rarely_exceeded(law, _RARE, _MOST_RESIDUALS)
    if stored_carries is None:
        stored_carries = max(2, _rarely_exceeded(law, _VERY_RARE, _MOST_CARRIES))
    check_positive(stored_windows=stored_windows, stored_carries=stored_carries, integer=True)
    num_residuals = stored_windows if mode == "stored" else 0
    num_carries = stored_carries + stored_carries % 2  # the anchors are halved

    def make_residuals(params: Any, carry: Any) -> Any:
        return fused.make_residuals(residuals_like(cell, params, carry), carry, length)

    def begin(params: Any, carry: Any) -> Stored:
        residuals = _tree.repeat(make_residuals(params, carry), num_residuals)
        carries, one = _tree.repeat(carry, num_carries), jnp.ones((), jnp.int32)
        anchors = jax.tree.map(jnp.copy, carries)  # a donated state holds no buffer twice
        return Stored(one - 1, residuals, carries, anchors, one)

    def advance(
        steps: Steps, params: Any, state: EstimatorState, end: jax.Array, rng_key: jax.Array
    ) -> Advance:
        del rng_key
        stream, initial_carry = steps.stream, state.initial_carry
        position, stored = jnp.asarray(state.position), state.inner_state
        n = stored.num_windows
        look_back = law.length_of(state.rng_key, state.num_estimates, n + 1)

        def arguments(entering: Any, first: jax.Array, count: int) -> Arguments:
            xs, resets = _tree.slice_steps((stream.xs, stream.resets), first, count)
            resets = None if resets is None else resets.astype(bool)
            return Arguments(params, entering, xs, None, resets, initial_carry, None)

        def new_window(count: int) -> Any:
            """Runs the new window; returns its carry, its residuals and its part of the result."""
            given = arguments(state.carry, position, count)
            (carry, ys), residuals = fused.forward(cell, given)
            at = position + jnp.arange(count, dtype=jnp.int32)
            read = read_out(loss_fn, params, ys, stream, at, jnp.ones((count,), bool))
            flow = _tree.zeros_like(_tree.partition(carry)[0])
            back = fused.backward(cell, given, residuals, flow, read.y_cotangents)
            sums = _tree.accumulate(_tree.zero_sums(params), read.grads)
            sums = _tree.accumulate(sums, back.params)
            if count < length:  # the last of the pass: nothing looks back to it
                residuals = make_residuals(params, carry)
            return carry, residuals, back.carry, sums, read.loss_sum, read.num_losses

        # Only the last window of a sequence may be shorter; its length is static.
        full, rest = divmod(stream.num_steps - stream.history, length)
        if not rest or not full:
            carry, new_residuals, flow, sums, loss_sum, num_losses = new_window(rest or length)
        else:
            carry, new_residuals, flow, sums, loss_sum, num_losses = lax.cond(
                end - position == length, lambda: new_window(length), lambda: new_window(rest)
            )

        def run_again(m: jax.Array, carry: Any) -> tuple[Any, Any]:
            """(the carry behind window m, its residuals), with the present params."""
            given = arguments(carry, position - (n - m) * length, length)
            (carry, _), residuals = fused.forward(cell, given)
            return carry, residuals

        def entering_window(m: jax.Array) -> Any:
            """The carry that entered window m; where it is not stored, run to from an anchor."""
            is_stored = n - m <= num_carries
            slot = m // stored.stride
            first = jnp.where(is_stored, m, slot * stored.stride)  # no steps where it is stored
            near, far = (
                _tree.index(stored.carries, m % num_carries),
                _tree.index(stored.anchors, slot),
            )
            carry = _tree.select(is_stored, near, far)
            return lax.fori_loop(first, m, lambda i, carry: run_again(i, carry)[0], carry)

        def older_window(j: jax.Array, loop: tuple[Any, Any, jax.Array, jax.Array]) -> Any:
            flow, sums, largest, weight = loop
            m = n - j
            gate = jnp.asarray(law.compensation(j), weight.dtype)
            flow = jax.tree.map(lambda leaf: cut_or_scale(leaf, gate), flow)
            entering = entering_window(m)
            # A loop of at most one turn: under vmap a cond would run both of its branches.
            again = lambda _, __: run_again(m, entering)[1]  # noqa: E731
            if num_residuals:
                residuals = _tree.index(stored.residuals, m % num_residuals)
                first = jnp.where(j <= num_residuals, 1, 0)
                residuals = lax.fori_loop(first, 1, again, residuals)
            else:
                residuals = again(0, None)
            given = arguments(entering, position - j * length, length)
            back = fused.backward(cell, given, residuals, flow)
            sums = _tree.accumulate(sums, back.params)
            return back.carry, sums, jnp.maximum(largest, gate), weight * gate

        one = jnp.ones((), jnp.result_type(float))
        loop = (flow, sums, one, one)
        if stream.num_steps > length:  # else there are no older windows
            loop = lax.fori_loop(1, look_back, older_window, loop)
        _, sums, largest, weight = loop
        # A look-back to steps that this stream does not hold must not pass for a gradient.
        oldest = n - look_back + 1
        anchor = oldest // stored.stride * stored.stride
        first = jnp.where(look_back <= num_carries + 1, oldest, anchor)
        is_missing = first < n - position // length
        sums = jax.tree.map(lambda leaf: jnp.where(is_missing, jnp.nan, leaf), sums)
        stored = _store(stored, state.carry, new_residuals, num_residuals, num_carries)
        if stream.ends:
            stored = stored._replace(num_windows=jnp.where(end == stream.num_steps, 0, n + 1))
        return Advance(
            grads=sums,
            carry=carry,
            inner_state=stored,
            loss_sum=loss_sum.astype(one.dtype),
            num_losses=num_losses,
            extra={"look_back": look_back},
            max_compensation=largest,
            max_weight=weight,
        )

    plan = Plan(length, history=length * num_carries)
    return stepwise(
        cell, loss_fn, length, begin, advance, normalizer, resets_at_end=False, plan=plan
    )


def _rarely_exceeded(law: TruncationLaw, chance: float, most: int) -> int:
    """The smallest number of older windows that a look-back exceeds with at most this chance."""
    survival = law.survival(np.arange(1, most + 1))  # P(more than j windows, the new one included)
    rare = np.flatnonzero(survival <= chance)
    return max(1, int(rare[0])) if rare.size else most


def _store(
    stored: Stored, carry: Any, residuals: Any, num_residuals: int, num_carries: int
) -> Stored:
    """Stores the residuals of the new window and the carry that entered it."""
    n = stored.num_windows
    # At the first window of a pass, the anchors of the last pass are dropped.
    stride = jnp.where(n == 0, 1, stored.stride)
    is_full = n == stride * num_carries

    def halve(anchors: Any) -> Any:
        return jax.tree.map(lambda leaf: jnp.concatenate([leaf[::2], leaf[::2]]), anchors)

    anchors = lax.cond(is_full, halve, lambda anchors: anchors, stored.anchors)
    stride = jnp.where(is_full, 2 * stride, stride)
    slot = n // stride
    anchor = _tree.select(n % stride == 0, carry, _tree.index(anchors, slot))
    if num_residuals:
        residuals = _tree.update(stored.residuals, residuals, n % num_residuals)
    return Stored(
        num_windows=n + 1,
        residuals=residuals if num_residuals else stored.residuals,
        carries=_tree.update(stored.carries, carry, n % num_carries),
        anchors=_tree.update(anchors, anchor, slot),
        stride=stride,
    )
