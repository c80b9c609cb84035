"""(iii) A clipped step moves the loss by at most L · η · θ_c.

L is the Lipschitz constant of the loss along the step, so the largest norm of its gradient there:

    |ℓ(θ') − ℓ(θ)| ≤ max over the segment from θ to θ' of ‖∇ℓ‖ · ‖θ' − θ‖ ≤ L · η · θ_c

ℓ is the loss of fixed sequences that training does not see, each from the initial carry. The
maximum is taken over evenly spaced points of the segment, both ends included. It may miss the
largest norm, which makes the bound that is tested smaller than the true one, never larger.
"""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.common.arms import parse
from experiments.common.report import Row
from experiments.stability import system


def run(config: Any) -> list[Row]:
    """One clipped run from each spectral radius."""
    init_key, boundary_key = jax.random.split(jax.random.key(config.seed))
    stream = system.sequences(config, 2 * config.seed, config.num_sequences)
    fixed = system.sequences(config, 1)
    estimator = system.make_estimator(parse(config.clipped_arm), config)
    rate, bounds = config.bound_learning_rate, system.Clip(norm_bound=config.clip_norm)

    @jax.jit
    def train(params: Any) -> Any:
        """The params before and after each update, and the norm of its gradient."""

        def update(loop: Any, none: None) -> Any:
            params, state = loop
            gradient, state, _ = estimator.estimate(params, state, stream)
            clipped = system.clip(gradient, bounds)
            new = jax.tree.map(lambda leaf, grad: leaf - rate * grad, params, clipped)
            return (new, state), (params, new, optax.tree.norm(gradient))

        carry = system.core.initial_carry(params["cell"], config.num_rows)
        start = params, estimator.init(params, carry, rng_key=boundary_key)
        return jax.lax.scan(update, start, length=config.bound_updates)[1]

    rows = []
    for radius in config.spectral_radii:
        before, after, norms = train(system.init(init_key, config.hidden_size, radius))
        steps = measure(before, after, fixed, config.bound_points) | {"gradient_norm": norms}
        rows.append(row_of(config, radius, jax.device_get(steps)))
    return rows


@functools.partial(jax.jit, static_argnames="num_points")
def measure(before: Any, after: Any, fixed: Any, num_points: int) -> dict[str, Any]:
    """Measures steps from `before` to `after`, trees with the steps as their first axis.

    Returns:
        Arrays [steps]: "change" |ℓ(θ') − ℓ(θ)|, "lipschitz" L, "length" ‖θ' − θ‖, "loss" ℓ(θ).
    """

    def one(ends: Any) -> dict[str, Any]:
        before, after = ends

        def at(fraction: jax.Array) -> tuple[jax.Array, jax.Array]:
            # Written so that both ends are met exactly.
            params = jax.tree.map(lambda a, b: (1 - fraction) * a + fraction * b, before, after)
            loss, gradient = jax.value_and_grad(system.mean_loss)(params, fixed)
            return loss, optax.tree.norm(gradient)

        losses, norms = jax.vmap(at)(jnp.linspace(0.0, 1.0, num_points))
        length = optax.tree.norm(jax.tree.map(jnp.subtract, after, before))
        found = {"change": jnp.abs(losses[-1] - losses[0]), "lipschitz": norms.max()}
        return found | {"length": length, "loss": losses[0]}

    return jax.lax.map(one, (before, after))


def row_of(config: Any, radius: float, steps: Mapping[str, Any]) -> Row:
    """In how many steps the bound held; `steps` as `measure` returns them, and "gradient_norm"."""
    rate, clip_norm, norms = config.bound_learning_rate, config.clip_norm, steps["gradient_norm"]
    ratios = steps["change"] / (steps["lipschitz"] * (rate * clip_norm))
    row: Row = {"part": "bound", "spectral_radius": radius, "learning_rate": rate}
    row |= {"clip_bound": clip_norm, "num_steps": len(ratios), "num_held": int(np.sum(ratios <= 1))}
    row |= {"largest_ratio": float(ratios.max()), "median_ratio": float(np.median(ratios))}
    row["share_clipped"] = float(np.mean(norms > clip_norm))
    row["largest_gradient_norm"] = float(norms.max())
    row["largest_change"] = float(steps["change"].max())
    row["longest_step_ratio"] = float(steps["length"].max() / (rate * clip_norm))
    row |= {"first_loss": float(steps["loss"][0]), "last_loss": float(steps["loss"][-1])}
    return row | {"ratios": [float(f"{ratio:.4g}") for ratio in ratios]}
