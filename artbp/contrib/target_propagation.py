"""Target propagation over segments: the states between segments are variables of their own."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

from artbp import _devices, _tree
from artbp._checks import check_integer, check_positive
from artbp.estimators.base import EstimatorState, GradientEstimator, Plan
from artbp.estimators.stepwise import Advance, Steps, stepwise
from artbp.unrolls.checks import Cell
from artbp.unrolls.readout import Counted, LossFn, loss_and_count, masked


def target_propagation(
    cell: Cell,
    loss_fn: LossFn,
    *,
    truncation_length: int,
    num_segments: int,
    penalty: float,
    target_optimizer: optax.GradientTransformation,
    target_steps: int,
    multiplier_updates: int = 0,
    normalizer: float = 1.0,
) -> GradientEstimator:
    """Target propagation needs no backward pass across segments, which can then run in parallel.

    An estimate takes a window of N segments of K steps. F_n(h) is the state after segment n if it
    begins with h, and ℓ_n(h) are its losses. The states h_2, …, h_N between the segments, the
    *targets*, are free; only a penalty ties them together:

        Λ = Σ_n ℓ_n(h_n) + λ/2 Σ_{n<N} ‖F_n(h_n) + u_n − h_{n+1}‖²
        h:  the states of a forward pass, then `target_steps` steps down ∂Λ/∂h, at all n together
        u:  0; or u_n ← u_n + F_n(h_n) − h_{n+1} after that, and again as often as is set
        the gradient is ∂Λ/∂θ with h and u fixed

    The optimiser of the parameters then makes its step, so targets and parameters alternate. Each
    step on the targets carries credit back over one segment more. Before the first one, the
    gradient is that of `artbp.tbptt(truncation_length=K)`, summed over the segments.

    Where ∂Λ/∂h = 0, λ (F_n + u_n − h_{n+1}) follows the recursion of BPTT, at the states h instead
    of those of the forward pass. So with few steps the gradient is biased by them, and with many by
    the penalty, by O(1/λ). With enough steps and multiplier updates F_n = h_{n+1}, and the gradient
    is that of BPTT over the window at any λ. No gradient leaves the window.

    Losses and carry are those of the forward pass: the targets have been fitted to the answers.
    `info.extra["gap"]` is Σ ‖F_n − h_{n+1}‖² at the last targets. A reset where a segment begins
    removes the penalty there.

    Evaluations of the cell for each time step, where a backward step counts 2: the forward pass 1,
    a step on the targets 3, a multiplier update 1, and the gradient 3.

    Args:
      cell, loss_fn, normalizer: as for `artbp.tbptt`.
      truncation_length: K, steps of a segment.
      num_segments: N, segments of a window, and so of an update.
      penalty: λ. Losses are summed over steps and rows, so it does not depend on their number.
      target_optimizer: makes the steps on the targets, such as `optax.sgd(0.3 / penalty)`. It
        begins anew in each window. Steps of gradient descent above about 1/(2 λ) diverge.
      target_steps: 0 or more; between multiplier updates if there are any.
      multiplier_updates: 0 is the penalty method, 1 the alternating directions of the source, and
        more the method of multipliers.

    Raises:
      ValueError: numbers outside their ranges.

    Source: Wiseman et al., "Training Language Models Using Target-Propagation" (arXiv 1702.04770),
    and their code, github.com/facebookresearch/TPRNN. There h begins with zeros, or with states
    that are one segment old, the losses are means over a segment, and AdaGrad makes the steps.
    """
    check_integer(1, truncation_length=truncation_length)
    check_integer(2, num_segments=num_segments)
    check_integer(0, target_steps=target_steps, multiplier_updates=multiplier_updates)
    check_positive(penalty=penalty)

    def advance(
        steps: Steps, params: Any, state: EstimatorState, end: jax.Array, rng_key: jax.Array
    ) -> Advance:
        del rng_key
        window = _Window(steps, *_times(state.position, end, num_segments, truncation_length))
        carry, entered, ys = window.forward(params, state.carry)
        loss_sum, counted = window.loss(params, ys)
        floats, rest = _tree.partition(entered)
        first, targets = _split(floats, 1)
        is_free = window.is_free(targets, rest)

        def objective(params: Any, targets: Any, multipliers: Any) -> tuple[jax.Array, Any]:
            """(Λ, the gaps F_n − h_{n+1})."""
            joined = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), first, targets)
            after, ys = window.segments(params, _tree.combine(joined, rest))
            after, _ = _split(_tree.partition(after)[0], -1)
            gaps = jax.tree.map(jnp.subtract, after, targets)
            gaps = jax.tree.map(
                lambda free, gap: _tree.select(free, gap, jnp.zeros_like(gap)), is_free, gaps
            )
            shifted = jax.tree.map(jnp.add, gaps, multipliers)
            squares = optax.tree.norm(_tree.widened(shifted), squared=True)
            return window.loss(params, ys)[0] + penalty / 2 * squares, gaps

        def target_step(_: jax.Array, fit: _Fit) -> _Fit:
            grads, _ = jax.grad(objective, 1, has_aux=True)(params, fit.targets, fit.multipliers)
            grads = jax.tree.map(jnp.conj, grads)  # of a complex leaf, JAX gives the conjugate
            updates, opt_state = target_optimizer.update(grads, fit.opt_state, fit.targets)
            return _Fit(optax.apply_updates(fit.targets, updates), opt_state, fit.multipliers)

        def fit_targets(fit: _Fit) -> _Fit:
            return lax.fori_loop(0, target_steps, target_step, fit)

        def fit_and_update(_: jax.Array, fit: _Fit) -> _Fit:
            fit = fit_targets(fit)
            _, gaps = objective(params, fit.targets, fit.multipliers)
            return fit._replace(multipliers=jax.tree.map(jnp.add, fit.multipliers, gaps))

        fit = _Fit(targets, target_optimizer.init(targets), _tree.zeros_like(targets))
        if multiplier_updates:
            fit = lax.fori_loop(0, multiplier_updates, fit_and_update, fit)
        else:
            fit = fit_targets(fit)
        grads, gaps = jax.grad(objective, has_aux=True)(params, fit.targets, fit.multipliers)
        gap = optax.tree.norm(_tree.widened(gaps), squared=True)
        extra = {"gap": _devices.total(gap, steps.axes)}
        return Advance(grads, carry, (), loss_sum, counted, extra)

    length = num_segments * truncation_length
    return stepwise(
        cell, loss_fn, length, lambda params, carry: (), advance, normalizer, plan=Plan(length)
    )


class _Fit(NamedTuple):
    targets: Any  # h, like the float leaves of the carry `[N − 1, ...]`
    opt_state: Any
    multipliers: Any  # u, like the targets


class _Window(NamedTuple):
    """The segments of an estimate. Beyond the end of the stream, steps change nothing."""

    steps: Steps
    times: jax.Array  # int32 `[N, K]`, with the last step of the stream in place of later ones
    valid: jax.Array  # bool `[N, K]`

    def segment(self, params: Any, carry: Any, times: Any, valid: Any) -> tuple[Any, Any]:
        """(the carry after a segment, its ys `[K, ...]`)."""

        def step(carry: Any, at: tuple[jax.Array, jax.Array]) -> tuple[Any, Any]:
            t, is_valid = at
            after, y = self.steps.run(params, carry, t)
            return _tree.select(is_valid, after, carry), y

        return lax.scan(step, carry, (times, valid))

    def segments(self, params: Any, carries: Any) -> tuple[Any, Any]:
        """`segment` of all segments in parallel, each from a carry of its own."""
        of_all = jax.vmap(self.segment, in_axes=(None, 0, 0, 0))
        return of_all(params, carries, self.times, self.valid)

    def forward(self, params: Any, carry: Any) -> tuple[Any, Any, Any]:
        """(the carry after the window; the carries that enter the segments; ys `[N, K, ...]`)."""

        def body(carry: Any, at: tuple[jax.Array, jax.Array]) -> tuple[Any, Any]:
            after, ys = self.segment(params, carry, *at)
            return after, (carry, ys)

        after, (entered, ys) = lax.scan(body, carry, (self.times, self.valid))
        return after, entered, ys

    def loss(self, params: Any, ys: Any) -> tuple[jax.Array, Counted]:
        """(the summed losses of all segments, what is counted with them)."""
        stream, times, valid = self.steps.stream, self.times.reshape(-1), self.valid.reshape(-1)
        ys = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), ys)
        is_masked = stream.mask is not None
        if is_masked:
            valid = masked(_tree.gather(jnp.asarray(stream.mask), times), valid)
        answers = _tree.gather(_tree.as_arrays(stream.targets), times)
        return loss_and_count(self.steps.loss_fn, params, ys, answers, valid, is_masked=is_masked)

    def is_free(self, targets: Any, rest: Any) -> Any:
        """Which rows of the targets enter a step: bool, like the targets `[N − 1, B]`."""
        carries = _tree.combine(targets, _split(rest, 1)[1])
        replaced = jax.vmap(self.steps.is_replaced)(carries, self.times[1:, 0])
        exists = self.valid[1:, 0]
        is_free = jax.tree.map(lambda flags: ~flags & _tree.align(exists, flags), replaced)
        return _tree.where_given(targets, is_free)


def _times(first: Any, end: jax.Array, num: int, length: int) -> tuple[jax.Array, jax.Array]:
    times = first + jnp.arange(num * length, dtype=jnp.int32).reshape(num, length)
    return jnp.minimum(times, end - 1), times < end


def _split(tree: Any, place: int) -> tuple[Any, Any]:
    """(`leaf[:place]`, `leaf[place:]`) of every leaf."""
    before = jax.tree.map(lambda leaf: leaf[:place], tree)
    return before, jax.tree.map(lambda leaf: leaf[place:], tree)
