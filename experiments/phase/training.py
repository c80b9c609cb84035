"""The trainings that the prediction is checked by: tuned on some seeds, reported on others."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.common.whole_run import train_whole
from experiments.phase.estimators import Contender
from experiments.phase.system import System, initial_carry, make_stream


class Trained(NamedTuple):
    """Attributes:
    rate: the one whose mean excess over the tuning seeds is the least.
    at_edge: whether it is the first or the last of the grid.
    excess: ½ Λ (θ − θ*)² at the end, `[seeds]`, of the seeds reported.
    """

    rate: float
    at_edge: bool
    excess: np.ndarray


def make_run(contender: Contender, batch: int, num_steps: int) -> Any:
    """`run(rates, keys, start, (ρ, g, σ)) -> θ at the end [keys, rates]`, compiled once."""
    estimator = contender.build(batch)
    edges = np.array([0, num_steps])

    def one(rate: Any, key: jax.Array, start: Any, numbers: Any, stream: Any) -> jax.Array:
        decay, gain, _ = numbers
        outcome = train_whole(
            estimator,
            optax.sgd,
            rate,
            {"theta": start},
            initial_carry(decay, gain, batch),
            stream,
            key,
            edges=edges,
        )
        return outcome.params["theta"]

    @jax.jit
    def run(rates: jax.Array, keys: jax.Array, start: jax.Array, numbers: Any) -> jax.Array:
        def of_key(key: jax.Array) -> jax.Array:
            data_key, boundary_key = jax.random.split(key)
            decay, gain, noise = numbers
            stream = make_stream(data_key, decay, gain, noise, num_steps, batch)
            # All rates cut at the same steps: side by side they wait for nobody.
            return jax.vmap(lambda rate: one(rate, boundary_key, start, numbers, stream))(rates)

        return jax.lax.map(of_key, keys)

    return run


def train(run: Any, system: System, rates: np.ndarray, config: Any) -> Trained:
    """Tunes and trains one estimator on one system. Seeds are common to all estimators.

    A rate at which a training does not end with finite numbers is never chosen.
    """
    number = config.num_tuning_seeds
    keys = jax.random.split(jax.random.key(config.seed), number + config.num_seeds)
    numbers = tuple(jnp.float32(x) for x in (system.decay, system.gain, system.noise))
    # Every rate on every seed: one program, and side by side the other rates cost next to nothing.
    theta = run(jnp.asarray(rates, jnp.float32), keys, jnp.float32(config.start), numbers)
    excess = 0.5 * system.curvature * (np.asarray(theta, np.float64) - system.optimum) ** 2
    tuned = excess[:number].mean(axis=0)
    best = int(np.argmin(np.where(np.isfinite(tuned), tuned, np.inf)))
    return Trained(float(rates[best]), best in (0, len(rates) - 1), excess[number:, best])
