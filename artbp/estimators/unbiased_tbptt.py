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
from artbp.unrolls.autodiff_recurrence import recurrence_of, residuals_like
from artbp.unrolls.checks import Cell, check_positive
from artbp.unrolls.chunk import (
    BackwardState,
    Segment,
    initial_state,
    make_residuals,
    num_chunks,
    segment_result,
)
from artbp.unrolls.functions import Functions
from artbp.unrolls.gate import cut_or_scale
from artbp.unrolls.readout import LossFn
from artbp.unrolls.recurrence import CHUNK
from artbp.unrolls.window import run_window, window_backward

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
      residuals: of the last R windows, those of window n in slot n mod (R + 1), and of one window
        that was run again.
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
    num_stored = stored_windows if mode == "stored" else 0
    num_carries = stored_carries + stored_carries % 2  # the anchors are halved
    chunk_size = min(CHUNK, length)
    # Slots for the residuals of windows: the stored ones and the new one, and a spare one for a
    # window that is run again. Without stored ones the new one is not needed any more by then.
    spare = num_stored + 1 if num_stored else 0

    def begin(params: Any, carry: Any) -> Stored:
        of_step = residuals_like(cell, params, carry)
        num_steps = (spare + 1) * num_chunks(length, chunk_size) * chunk_size
        carries, one = _tree.repeat(carry, num_carries), jnp.ones((), jnp.int32)
        return Stored(
            num_windows=one - 1,
            residuals=make_residuals(of_step, carry, num_steps, chunk_size),
            carries=carries,
            anchors=jax.tree.map(jnp.copy, carries),  # a donated state holds no buffer twice
            stride=one,
        )

    def advance(
        steps: Steps, params: Any, state: EstimatorState, end: jax.Array, rng_key: jax.Array
    ) -> Advance:
        del rng_key
        stream, stored = steps.stream, state.inner_state
        position, n = jnp.asarray(state.position), stored.num_windows
        look_back = law.length_of(state.rng_key, state.num_estimates, n + 1)
        x = _tree.index(stream.xs, 0)
        recurrence = recurrence_of(cell, params, state.carry, x)

        def window(start: jax.Array, num_steps: Any, is_padded: bool = False) -> Segment:
            return Segment(
                functions=Functions(cell, loss_fn),
                params=params,
                initial_carry=state.initial_carry,
                stream=stream,
                recurrence=recurrence,
                start=start,
                length=jnp.asarray(num_steps, jnp.int32),
                chunk_size=chunk_size,
                is_padded=is_padded,
            )

        # The new window. Only the last of a sequence can be shorter than K.
        num_new = stream.num_steps - stream.history
        count = min(length, num_new)
        new = window(position, end - position, is_padded=num_new % count != 0)
        slot = n % (num_stored + 1)
        carry, residuals = run_window(new, state.carry, count, stored.residuals, slot)
        back = window_backward(new, residuals, count, slot, initial_state(new), reads_out=True)

        def run_again(m: jax.Array, carry: Any, residuals: Any = None) -> tuple[Any, Any]:
            """Runs window m with the present params, its residuals into the spare slot."""
            again = window(position - (n - m) * length, length)
            return run_window(again, carry, length, residuals, spare)

        def entering_window(m: jax.Array) -> Any:
            """The carry that entered window m; where it is not stored, run to from an anchor."""
            is_stored = n - m <= num_carries
            slot = m // stored.stride
            first = jnp.where(is_stored, m, slot * stored.stride)  # no steps where it is stored
            near = _tree.index(stored.carries, m % num_carries)
            carry = _tree.select(is_stored, near, _tree.index(stored.anchors, slot))
            return lax.fori_loop(first, m, lambda i, carry: run_again(i, carry)[0], carry)

        def older_window(j: jax.Array, loop: tuple[BackwardState, Any]) -> Any:
            back, residuals = loop
            m = n - j
            gate = jnp.asarray(law.compensation(j), back.max_weight.dtype)
            back = back._replace(
                flow=jax.tree.map(lambda leaf: cut_or_scale(leaf, gate), back.flow),
                max_compensation=jnp.maximum(back.max_compensation, gate),
                max_weight=back.max_weight * gate,
            )
            is_stored = j <= num_stored
            entering = entering_window(m)
            # A loop of at most one turn: under vmap a cond would run both of its branches.
            residuals = lax.fori_loop(
                jnp.where(is_stored, 1, 0),
                1,
                lambda _, residuals: run_again(m, entering, residuals)[1],
                residuals,
            )
            slot = jnp.where(is_stored, m % (num_stored + 1), spare)
            older = window(position - j * length, length)
            back = window_backward(older, residuals, length, slot, back, reads_out=False)
            return back, residuals

        if stream.num_steps > length:  # else there are no older windows
            back, residuals = lax.fori_loop(1, look_back, older_window, (back, residuals))
        result = segment_result(new, back, carry, residuals)
        # A look-back to steps that this stream does not hold must not pass for a gradient.
        oldest = n - look_back + 1
        anchor = oldest // stored.stride * stored.stride
        is_missing = (
            jnp.where(look_back <= num_carries + 1, oldest, anchor) < n - position // length
        )
        stored = _with_carry(stored._replace(residuals=result.scratch), state.carry, num_carries)
        if stream.ends:
            stored = stored._replace(num_windows=jnp.where(end == stream.num_steps, 0, n + 1))
        return Advance(
            grads=jax.tree.map(lambda leaf: jnp.where(is_missing, jnp.nan, leaf), result.grads),
            carry=result.carry,
            inner_state=stored,
            loss_sum=result.loss_sum,
            num_losses=result.num_losses,
            extra={"look_back": look_back},
            max_compensation=result.max_compensation,
            max_weight=result.max_weight,
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


def _with_carry(stored: Stored, carry: Any, num_carries: int) -> Stored:
    """Stores the carry that entered the new window, and counts the window."""
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
    return stored._replace(
        num_windows=n + 1,
        carries=_tree.update(stored.carries, carry, n % num_carries),
        anchors=_tree.update(anchors, anchor, slot),
        stride=stride,
    )
