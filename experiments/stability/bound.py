"""(iii) A clipped step moves the loss by at most L · η · θ_c.

L is the Lipschitz constant of the loss along the step, so the largest norm of its gradient there:

    |ℓ(θ') − ℓ(θ)| ≤ max over the segment from θ to θ' of ‖∇ℓ‖ · ‖θ' − θ‖ ≤ L · η · θ_c

ℓ is the loss of fixed sequences that training does not see, each from the initial carry. The
maximum is taken over evenly spaced points of the segment, both ends included: it may miss the
largest, which makes the bound that is tested smaller than the true one, never larger.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.common.report import Row
from experiments.stability import methods, system


class Steps(NamedTuple):
    """One clipped run; float arrays [updates].

    Attributes:
        change: |ℓ(θ') − ℓ(θ)|.
        lipschitz: L, the largest gradient norm at the points of the segment.
        length: ‖θ' − θ‖.
        gradient_norm: of the ARTBP gradient before it is clipped.
        loss: ℓ(θ).
    """

    change: np.ndarray
    lipschitz: np.ndarray
    length: np.ndarray
    gradient_norm: np.ndarray
    loss: np.ndarray


def run(config: Any) -> tuple[list[Row], dict[float, Steps]]:
    """One clipped ARTBP run from each spectral radius: rows, and all its steps."""
    train = clipped_training(config, config.bound_learning_rate, config.clip_norm)
    common = {"length": config.sequence_length, "horizon": config.horizon}
    fixed = system.sequences(1, config.num_rows, num_sequences=1, **common)
    init_key, boundary_key = jax.random.split(jax.random.key(config.seed))
    all_steps = {}
    for radius in config.spectral_radii:
        params = system.init(init_key, config.hidden_size, radius)
        before, after, gradient_norm = train(params, boundary_key)
        change, lipschitz, length, loss = measure(before, after, fixed, config.bound_points)
        parts = (change, lipschitz, length, gradient_norm, loss)
        all_steps[radius] = Steps(*(np.asarray(part) for part in parts))
    return [row_of(config, radius, steps) for radius, steps in all_steps.items()], all_steps


def row_of(config: Any, radius: float, steps: Steps) -> Row:
    """In how many steps the bound held, and how close it came."""
    largest_step = config.bound_learning_rate * config.clip_norm
    ratio = steps.change / (steps.lipschitz * largest_step)
    return {
        "part": "bound",
        "spectral_radius": radius,
        "learning_rate": config.bound_learning_rate,
        "clip_bound": config.clip_norm,
        "num_steps": len(ratio),
        "num_held": int(np.sum(ratio <= 1)),
        "largest_ratio": float(ratio.max()),
        "median_ratio": float(np.median(ratio)),
        "share_clipped": float(np.mean(steps.gradient_norm > config.clip_norm)),
        "largest_gradient_norm": float(steps.gradient_norm.max()),
        "largest_change": float(steps.change.max()),
        "longest_step_ratio": float(steps.length.max() / largest_step),
        "first_loss": float(steps.loss[0]),
        "last_loss": float(steps.loss[-1]),
    }


def clipped_training(config: Any, rate: float, bound: float) -> Callable[..., Any]:
    """ARTBP with SGD clipped by norm: `train(params, rng_key) -> (before, after, norm)`.

    Parameters before and after each update, and the norm of the gradient before it is clipped;
    all with the updates as their first axis.
    """
    length = config.sequence_length
    stream = system.sequences(
        2 * config.seed,
        config.num_rows,
        num_sequences=config.num_sequences,
        length=length,
        horizon=config.horizon,
    )
    truncation = methods.Truncation("artbp_polynomial", config.mean_length, config.alpha, length)
    estimator = truncation.estimator(config.num_rows)

    @jax.jit
    def train(params: Any, rng_key: jax.Array) -> Any:
        carry = system.core.initial_carry(params["cell"], config.num_rows)
        state = estimator.init(params, carry, rng_key=rng_key)

        def update(loop: Any, none: None) -> Any:
            del none
            params, state = loop
            gradient, state, _ = estimator.estimate(params, state, stream)
            clipped = methods.clip(gradient, methods.Clip(norm=bound))
            new = jax.tree.map(lambda x, g: x - rate * g, params, clipped)
            return (new, state), (params, new, system.global_norm(gradient))

        return jax.lax.scan(update, (params, state), length=config.bound_updates)[1]

    return train


@jax.jit(static_argnames="num_points")
def measure(before: Any, after: Any, fixed: Any, num_points: int) -> tuple[jax.Array, ...]:
    """(change, lipschitz, length, loss before) of steps with a first axis; see `Steps`."""
    fractions = jnp.linspace(0.0, 1.0, num_points)

    def one(ends: Any) -> tuple[jax.Array, ...]:
        before, after = ends

        def at(fraction: jax.Array) -> tuple[jax.Array, jax.Array]:
            # Written so that both ends are met exactly.
            params = jax.tree.map(lambda a, b: (1 - fraction) * a + fraction * b, before, after)
            loss, gradient = jax.value_and_grad(system.mean_loss)(params, fixed)
            return loss, system.global_norm(gradient)

        losses, norms = jax.vmap(at)(fractions)
        step = jax.tree.map(jnp.subtract, after, before)
        change = jnp.abs(losses[-1] - losses[0])
        return change, norms.max(), system.global_norm(step), losses[0]

    return jax.lax.map(one, (before, after))
