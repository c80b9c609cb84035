"""Shared driver of the evolution strategies: unrolls with perturbed parameters."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from artbp import _tree
from artbp._checks import check_positive
from artbp._draws import draws_alike_under_vmap
from artbp.estimators.base import EstimatorState, GradientEstimator, Plan
from artbp.estimators.stepwise import Advance, Steps, before_steps, for_steps, stepwise
from artbp.unrolls.checks import Cell
from artbp.unrolls.readout import LossFn


class Particles(NamedTuple):
    """The state of the particles +ε and −ε of M pairs."""

    carries: Any  # of every +ε, then of every −ε, `[2 M, ...]`
    accumulated: Any  # ξ of every +ε, like params `[M, ...]`; −ε has −ξ
    perturbations: Any  # ε of every +ε, like `accumulated`; () if each unroll draws new ones
    age: jax.Array  # unrolls since these were drawn; 0 if the next unroll draws new ones


def evolution_strategy(
    cell: Cell,
    loss_fn: LossFn,
    truncation_length: int,
    num_pairs: int,
    scale: float,
    normalizer: float,
    *,
    persistent: bool,
    unrolls_per_draw: int | None = 1,
) -> GradientEstimator:
    """Builds truncated ES or, if `persistent`, PES; for the arguments see `artbp.truncated_es`.

    In truncated ES all particles start from the unperturbed carry, and ξ = ε. Persistent particles
    continue from their own carries, and ξ sums the perturbations since the stream began. They draw
    new ones every `unrolls_per_draw` unrolls; None: once. Where a reset replaces the carry of all
    rows at the first step of an unroll, both begin again, as at the beginning of the stream.
    """
    check_positive(truncation_length=truncation_length, num_pairs=num_pairs, integer=True)
    check_positive(scale=scale)

    def particles_at(params: Any, carry: Any) -> Particles:
        # Two trees of zeros: a state whose leaves share a buffer cannot be donated.
        zeros, perturbations = _tree.zeros_like(_tree.repeat((params, params), num_pairs))
        if unrolls_per_draw == 1:
            perturbations = ()
        carries = _tree.repeat(carry, 2 * num_pairs)
        return Particles(carries, zeros, perturbations, jnp.zeros((), jnp.int32))

    def forget_at_reset(particles: Particles, steps: Steps, state: EstimatorState) -> Particles:
        """What follows does not depend on earlier perturbations: ξ = 0, and new ones are drawn."""

        first = jnp.asarray(state.position)
        # Any leaf but a key may depend on the params.
        [is_reset] = steps.all_replaced(state.carry, first, 1, lambda leaf: not _tree.is_key(leaf))
        nothing = _tree.zeros_like(particles.accumulated), jnp.zeros_like(particles.age)
        accumulated, age = _tree.select(is_reset, nothing, (particles.accumulated, particles.age))
        return particles._replace(accumulated=accumulated, age=age)

    def perturb(particles: Particles, drawn: Any) -> tuple[Particles, Any]:
        """(the particles, without new carries, and their perturbations in the next unroll)."""
        accumulated = jax.tree.map(jnp.add, particles.accumulated, drawn)
        if unrolls_per_draw == 1:
            return particles._replace(accumulated=accumulated), drawn
        is_due, age = particles.age == 0, particles.age + 1
        drawn = _tree.select(is_due, drawn, particles.perturbations)
        return Particles(
            carries=particles.carries,
            accumulated=_tree.select(is_due, accumulated, particles.accumulated),
            perturbations=drawn,
            age=age if unrolls_per_draw is None else age % unrolls_per_draw,
        ), drawn

    def advance(
        steps: Steps, params: Any, state: EstimatorState, end: jax.Array, rng_key: jax.Array
    ) -> Advance:
        def run(perturbation: Any, carry: Any) -> Advance:
            """Runs the steps without derivatives of cell or loss."""
            perturbed = jax.tree.map(jnp.add, params, perturbation)

            def body(t: jax.Array, valid: jax.Array, loop: Advance) -> Advance:
                carry, y = steps.run(perturbed, loop.carry, t)
                loss, counted = steps.loss(perturbed, y, t)
                loss_sum = loop.loss_sum + loss.astype(loop.loss_sum.dtype)
                counted = _tree.accumulate(loop.counted, counted)
                new = Advance((), carry, (), loss_sum, counted)
                return _tree.select(valid, new, loop)

            first, count = jnp.asarray(state.position), steps.at_most(truncation_length)
            return for_steps(count, first, end, body, before_steps(steps, params, (), carry))

        if persistent:
            particles = forget_at_reset(state.inner_state, steps, state)
        else:
            particles = particles_at(params, state.carry)
        drawn = _draw_perturbations(rng_key, params, num_pairs, scale)
        particles, perturbations = perturb(particles, drawn)
        pairs = jax.tree.map(lambda leaf: jnp.concatenate([leaf, -leaf]), perturbations)
        # The unperturbed system runs beside them, in the same loop.
        everything = _append((pairs, particles.carries), (_tree.zeros_like(params), state.carry))
        _check_keys(state.carry)
        unrolls = jax.vmap(run)(*everything)
        positive, negative = jnp.split(unrolls.loss_sum[:-1], 2)
        weights = (positive - negative) / (2 * num_pairs * scale**2)

        def weighted_sum(leaf: jax.Array) -> jax.Array:
            dtype = _tree.at_least_float32(leaf.dtype)
            return jnp.tensordot(weights.astype(dtype), leaf.astype(dtype), 1)

        grads = jax.tree.map(weighted_sum, particles.accumulated)
        carries = jax.tree.map(lambda leaf: leaf[:-1], unrolls.carry)
        inner_state = particles._replace(carries=carries) if persistent else ()
        unperturbed = jax.tree.map(lambda leaf: leaf[-1], unrolls)
        return unperturbed._replace(grads=grads, inner_state=inner_state)

    begin = particles_at if persistent else lambda params, carry: ()
    plan = Plan(int(truncation_length))
    return stepwise(cell, loss_fn, truncation_length, begin, advance, normalizer, plan=plan)


def _append(trees: Any, one: Any) -> Any:
    """`[M + 1, ...]`, from leaves `[M, ...]` and `[...]`."""
    return jax.tree.map(lambda many, leaf: jnp.concatenate([many, leaf[None]]), trees, one)


def _check_keys(carry: Any) -> None:
    """Raises ValueError if a key of the carry would draw other numbers for each particle."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(carry):
        if _tree.is_key(leaf) and not draws_alike_under_vmap(leaf):
            raise ValueError(
                f"carry{jax.tree_util.keystr(path)} has keys of {jax.random.key_impl(leaf)}; "
                "expected keys of threefry2x32. The particles run side by side under jax.vmap, "
                "where other keys draw different numbers for each of them, so the noise of θ + ε "
                "and θ − ε would not cancel. Use jax.random.key(seed, impl='threefry2x32'), or "
                "draw outside the cell: artbp.with_keys."
            )


def _draw_perturbations(rng_key: jax.Array, params: Any, num_pairs: int, scale: float) -> Any:
    """Draws normal deviates of standard deviation `scale`, one set per pair: `[M, ...]`."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        if not jnp.issubdtype(leaf.dtype, jnp.floating) or leaf.dtype.itemsize < 4:
            raise TypeError(
                f"params{jax.tree_util.keystr(path)} has dtype {leaf.dtype}; evolution strategies "
                "need real params of float32 or wider, so that θ ± ε is not rounded. Keep them so "
                "and cast inside the cell; keep a complex param as two, its real and its imaginary "
                "part, and join these inside the cell with jax.lax.complex."
            )

    def normal(rng_key: jax.Array, shape: Any, dtype: Any) -> jax.Array:
        return scale * jax.random.normal(rng_key, (num_pairs, *shape), dtype)

    return optax.tree.random_like(rng_key, params, normal)
