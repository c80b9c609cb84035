"""Truncated BPTT(k1, k2): an update every k1 steps, looking back k2 steps."""

from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp

from artbp import _devices, _tree
from artbp._checks import check_positive
from artbp.estimators.base import EstimatorState, GradientEstimator
from artbp.estimators.carry_ring import run_backward, run_forward, steps_so_far
from artbp.estimators.stepwise import Advance, Steps, stepwise
from artbp.unrolls.checks import Cell
from artbp.unrolls.readout import LossFn

Mode = Literal["stored", "past_weights", "reforward"]
Losses = Literal["new", "window"]


class Window(NamedTuple):
    """The carries that entered the last k2 steps, and the params that these ran with."""

    carries: Any  # `[k2, ...]`, that of step t in slot t mod k2
    versions: Any  # `[n, ...]`, that of step t in slot (t // k1) mod n; () but for "past_weights"
    num_steps: jax.Array  # int32, of the present sequence so far: no window is longer


def tbptt_k1_k2(
    cell: Cell,
    loss_fn: LossFn,
    *,
    k1: int,
    k2: int,
    mode: Mode = "stored",
    losses: Losses = "new",
    normalizer: float = 1.0,
) -> GradientEstimator:
    """Truncated BPTT(k1, k2): every k1 steps, backpropagation through the last k2.

    It means::

        for t in k1, 2 k1, ..., T:                       # T too, where k1 does not divide it
            δ = 0
            for u in t, t − 1, ..., max(t − k2, 0) + 1:  # the window
                δ = ∂(w_u ℓ_u)/∂s_u + (∂F_{u+1}/∂s_u)ᵀ δ
                g += (∂F_u/∂θ)ᵀ δ  (+ the readout's own gradient)

    w_u = 1 on the new steps, those since the last update, and 0 on older ones (`losses="new"`).
    One estimate is k1 steps, or those that are left at the end of the stream. For k2 ≤ k1 the
    last, shorter estimate does not look back beyond the last update either, so k1 = k2 = K equals
    `artbp.tbptt`. The carry goes on throughout; the first windows are shorter than k2.

    k2 < k1: new steps before the window contribute the gradient of their readout only; y is treated
    as a constant there.

    k2 > k1: the older steps of a window have run with older weights. The modes differ in what they
    differentiate, in evaluations of the cell and in memory, which never grows with the stream:

    - "stored": ∂F_u is taken at the carry that entered step u when it was run, with the present
      weights. k1 steps forward, k2 forward and backward; stores k2 carries.
    - "past_weights": the same with the weights that step u ran with. It stores the weights of k2
      steps as well: about k2/k1 + 1 copies.
    - "reforward": the window is run again with the present weights, from the carry at its start. k2
      steps forward, k2 forward and backward; stores k2 carries, those of the new run.

    Only "reforward" is the exact gradient of a function, the window's losses from a fixed first
    carry. The other two mix weights of different times, by as much as the weights have moved in k2
    steps. With frozen params, and for k2 ≤ k1, the three are equal.

    Args:
      cell, loss_fn, normalizer: as for `artbp.artbp`.
      k1: steps between updates.
      k2: steps of a window.
      mode: see above.
      losses: for k2 > k1, which losses a window counts. "new": those of the last k1 steps, so that
        each is counted once, as in Williams & Peng's BPTT(h; h'). "window": those of all k2 steps,
        each times k1/k2, as where a program differentiates the loss of a sliding window. Inside the
        stream each is then counted k2/k1 times, and near its end less often.

    Raises:
      ValueError: k1 or k2 is not an integer ≥ 1; an unknown mode or choice of losses.

    Source: Williams & Peng, "An efficient gradient-based algorithm for on-line training of
    recurrent network trajectories" (1990); the name TBPTT(k1, k2) is from Sutskever, "Training
    recurrent neural networks" (2013).
    """
    check_positive(k1=k1, k2=k2, integer=True)
    for name, given, known in (("mode", mode, Mode), ("losses", losses, Losses)):
        if given not in get_args(known):
            words = ", ".join(map(repr, get_args(known)))
            raise ValueError(f"{name}={given!r}; expected one of {words}.")
    num_versions = (k2 - 2) // k1 + 2  # estimates that the steps of a window can belong to

    def begin(params: Any, carry: Any) -> Window:
        versions = _tree.repeat(params, num_versions) if mode == "past_weights" else ()
        return Window(_tree.repeat(carry, k2), versions, jnp.zeros((), jnp.int32))

    def advance(
        steps: Steps, params: Any, state: EstimatorState, end: jax.Array, rng_key: jax.Array
    ) -> Advance:
        del rng_key
        first, carry = jnp.asarray(state.position), state.carry
        ring, versions, num_steps = state.inner_state
        num_steps = steps_so_far(num_steps, first, end)
        # Where windows do not overlap, the last one stays behind the last update as well.
        start = jnp.maximum(end - k2, first if k2 <= k1 else end - num_steps)
        params_at: Any = lambda t: params  # noqa: E731
        if mode == "past_weights":
            versions = _tree.update(versions, steps.given_params, (first // k1) % num_versions)
            axes = _devices.varying(params)

            def params_at(t: jax.Array) -> Any:
                return _devices.on_each(_tree.index(versions, (t // k1) % num_versions), axes)

        from_step, count = first, steps.at_most(k1)
        if mode == "reforward" and k2 > k1:
            carry = _tree.select(start < first, _tree.index(ring, start % k2), carry)
            from_step, count = start, steps.at_most(k2)
        window = start if k2 < k1 else None
        result = run_forward(
            steps, params, carry, ring, from_step, end, count, size=k2, new=first, window=window
        )

        def weight(t: jax.Array) -> jax.Array:
            if losses == "window" and k2 > k1:
                return jnp.asarray(k1 / k2)
            return jnp.where(t >= first, 1.0, 0.0)

        ring, sums, count = result.inner_state, result.grads, steps.at_most(k2)
        grads = run_backward(
            steps, params_at, ring, start, end, sums, size=k2, weight=weight, count=count
        )
        return result._replace(grads=grads, inner_state=Window(ring, versions, num_steps))

    # The ring need not be made anew at the end of a stream: `num_steps` begins again.
    return stepwise(cell, loss_fn, k1, begin, advance, normalizer, resets_at_end=False)
