"""The recursion of backpropagation through time, with a gate on the flow through the carry.

    δ_t = ∂ℓ_t/∂s_t + gate_t · (∂F_{t+1}/∂s_t)ᵀ δ_{t+1}

s_t = F_t(s_{t−1}; θ) is the carry after step t and δ_t = ∂L/∂s_t its cotangent. The gate is 1 for
BPTT, 0 at the boundaries of truncated BPTT, and (1 − X_t)/(1 − c_t) for ARTBP (Tallec & Ollivier,
arXiv 1705.08209). `backpropagate` is the only implementation: every kernel and estimator that goes
backward in time calls it, and they differ in the two functions that they hand over.
"""

from collections.abc import Callable
from typing import Any

import jax
from jax import lax

from artbp import _tree
from artbp.unrolls.gate import cut_or_scale

PullBack = Callable[[Any, Any], tuple[Any, Any]]
Collect = Callable[[Any, Any, Any, Any], Any]


def backpropagate(
    pull_back: PullBack,
    collect: Collect,
    flow: Any,
    collected: Any,
    *,
    count: Any,
    gates: jax.Array | None = None,
    resets: jax.Array | None = None,
    initial_carry: Any = None,
    taken: jax.Array | None = None,
) -> tuple[Any, Any]:
    """Runs the recursion backward over the steps count − 1, …, 0 of a run of consecutive steps::

        for t in reversed(range(count)):
            flow = gates[t] * flow                  # gate_t · (∂F_{t+1}/∂s_t)ᵀ δ_{t+1}
            delta, flow = pull_back(t, flow)        # + ∂ℓ_t/∂s_t = δ_t; times (∂F_t/∂s_{t−1})ᵀ
            collected = collect(collected, t, delta, flow)
            if resets[t]: flow = 0                  # the reset replaced the carry before step t

    Args:
      pull_back: `pull_back(t, cotangent) -> (delta, entering)`. It adds the cotangent of the loss
        of step t to that of the carry after step t, and takes the sum back through the step:
        `entering` is the cotangent of the carry that entered the step. `delta` is whatever
        `collect` needs.
      collect: `collect(collected, t, delta, entering) -> collected`, for example a sum of
        gradients.
      flow: (∂F_{t+1}/∂s_t)ᵀ δ_{t+1} behind the last step: on the differentiable leaves of the
        carry, None elsewhere. Zero behind a boundary.
      collected: what `collect` starts from.
      count: the number of steps; may be traced.
      gates: float `[count]` or `[count, B]`, perhaps longer; None: all ones.
      resets: bool, like `gates`; None: no resets.
      initial_carry: what the resets put into the carry. The flow through leaves for which it is
        None crosses resets. Default: the resets replace all leaves.
      taken: bool, like `gates`. Where it is False the step does not exist: the flow passes it
        unchanged, and its delta is zero. None: all steps exist.

    Returns:
      (the cotangent of the carry that enters step 0, collected).
    """
    no_flow = flow if initial_carry is None else _tree.partition(initial_carry)[0]
    no_flow = _tree.zeros_like(no_flow)

    def step(i: Any, loop: tuple[Any, Any]) -> tuple[Any, Any]:
        flow, collected = loop
        t = count - 1 - i
        gated = flow
        if gates is not None:
            gate = _tree.index(gates, t)
            gated = jax.tree.map(lambda leaf: cut_or_scale(leaf, gate), flow)
        delta, entering = pull_back(t, gated)  # δ_t = ∂ℓ_t/∂s_t + gate_t · (∂F_{t+1}/∂s_t)ᵀ δ_{t+1}
        if taken is not None:
            delta = _tree.select(_tree.index(taken, t), delta, _tree.zeros_like(delta))
        collected = collect(collected, t, delta, entering)
        if resets is not None:
            reset = _tree.index(resets, t)
            entering = _tree.replace(reset, no_flow, entering)
        if taken is not None:
            entering = _tree.select(_tree.index(taken, t), entering, flow)
        return entering, collected

    return lax.fori_loop(0, count, step, (flow, collected))


def store(buffers: Any, t: Any, delta: Any, entering: Any) -> Any:
    """A `collect` that keeps every delta: `buffers[t] = delta`."""
    del entering
    return _tree.update(buffers, delta, t)


def add(sums: Any, t: Any, delta: Any, entering: Any) -> Any:
    """A `collect` for deltas that are gradients: their sum, in the dtype of the sums."""
    del t, entering
    return _tree.accumulate(sums, delta)
