"""The trainings that the prediction is checked by: tuned on some seeds, reported on others."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.common import tuning
from experiments.common.arms import Arm
from experiments.common.tuning import Choice, choose_rate
from experiments.common.whole_run import train_whole
from experiments.phase.system import System, cell, initial_carry, loss_fn, make_stream


class Trained(NamedTuple):
    """Attributes:
    choice: the rate.
    excess: ½ Λ (θ − θ*)² at the end, `[seeds]`, of the seeds reported.
    """

    choice: Choice
    excess: np.ndarray


def make_run(arm: Arm, batch: int, num_steps: int) -> Any:
    """`run(rates, keys, start, (ρ, g, σ)) -> θ at the end [keys, rates]`, compiled once."""
    estimator = arm.build(cell, loss_fn, normalizer=float(batch))
    edges = np.array([0, num_steps])

    @jax.jit
    def run(rates: jax.Array, keys: jax.Array, start: jax.Array, numbers: Any) -> jax.Array:
        def of_key(key: jax.Array) -> jax.Array:
            data_key, boundary_key = jax.random.split(key)
            decay, gain, noise = numbers
            stream = make_stream(data_key, decay, gain, noise, num_steps, batch)
            carry = initial_carry(decay, gain, batch)

            def at_rate(rate: jax.Array) -> jax.Array:
                params = {"theta": start}
                outcome = train_whole(
                    estimator, optax.sgd, rate, params, carry, stream, boundary_key, edges=edges
                )
                return outcome.params["theta"]

            # All rates cut at the same steps, so that none waits for another.
            return jax.vmap(at_rate)(rates)

        return jax.lax.map(of_key, keys)

    return run


def train(run: Any, system: System, rates: np.ndarray, config: Any) -> Trained:
    """Tunes and trains one estimator on one system. Seeds are common to all estimators."""
    numbers = tuple(jnp.float32(x) for x in (system.decay, system.gain, system.noise))
    # Every rate on every seed: one program, and the other rates cost next to nothing.
    keys, start = tuning.run_keys(config), jnp.float32(config.start)
    theta = run(jnp.asarray(rates, jnp.float32), keys, start, numbers)
    excess = 0.5 * system.curvature * (np.asarray(theta, np.float64) - system.optimum) ** 2
    tuned, reported = tuning.split(excess, config)
    choice = choose_rate(rates, tuned)
    return Trained(choice, reported[:, choice.index])
