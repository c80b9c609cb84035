"""Unbiased truncated BPTT on a fixed clock: windows of K steps that look back a random distance."""

from functools import partial
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np

from artbp import _tree
from artbp.estimators.base import EstimatorState, GradientEstimator, Plan
from artbp.estimators.stepwise import Advance, Steps, stepwise
from artbp.truncation.base import TruncationLaw, check_law
from artbp.truncation.deterministic import check_length
from artbp.unrolls.batching import lockstep
from artbp.unrolls.checks import Cell, check_positive
from artbp.unrolls.closure import hoist_functions
from artbp.unrolls.functions import Functions
from artbp.unrolls.look_back import (
    Sizes,
    Stored,
    look_back_gradient,
    make_stored,
    oldest_step,
    store_carry,
)
from artbp.unrolls.readout import LossFn

Mode = Literal["stored", "reforward"]

# By default the residuals of so many older windows are stored that a look-back goes beyond them
# with at most this chance, and no more than so many.
_RARE, _MOST_RESIDUALS = 1 / 64, 16
# The same for the carries that entered older windows, which are small.
_VERY_RARE, _MOST_CARRIES = 1e-12, 64


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
    sizes = Sizes(length, num_stored, num_carries=stored_carries + stored_carries % 2)
    functions = Functions(cell, loss_fn)

    def begin(params: Any, carry: Any) -> Stored:
        return make_stored(cell, params, carry, sizes)

    def advance(
        steps: Steps, params: Any, state: EstimatorState, end: jax.Array, rng_key: jax.Array
    ) -> Advance:
        del rng_key
        stream, stored, position = steps.stream, state.inner_state, jnp.asarray(state.position)
        look_back = law.length_of(state.rng_key, state.num_estimates, stored.num_windows + 1)
        x, target = _tree.index((stream.xs, stream.targets), 0)
        functions_of, constants = hoist_functions(functions, params, state.carry, x, target)
        kernel = partial(look_back_gradient, functions_of, law.compensation, sizes)
        carries = state.carry, state.initial_carry
        place = stream, position, end - position, look_back
        result = lockstep(kernel)(constants, params, *carries, stored, *place)
        # A look-back to steps that this stream does not hold must not pass for a gradient.
        is_missing = oldest_step(stored, position, look_back, sizes) < 0
        stored = store_carry(stored._replace(residuals=result.scratch), state.carry)
        if stream.ends:
            is_over = end == stream.num_steps
            stored = stored._replace(num_windows=jnp.where(is_over, 0, stored.num_windows))
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

    plan = Plan(length, history=length * sizes.num_carries)
    return stepwise(
        cell, loss_fn, length, begin, advance, normalizer, resets_at_end=False, plan=plan
    )


def _rarely_exceeded(law: TruncationLaw, chance: float, most: int) -> int:
    """The smallest number of older windows that a look-back exceeds with at most this chance."""
    survival = law.survival(np.arange(1, most + 1))  # P(more than j windows, the new one included)
    rare = np.flatnonzero(survival <= chance)
    return max(1, int(rare[0])) if rare.size else most
