"""Trains each arm with SGD, at all learning rates and from all keys in one program."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import artbp
from experiments.common.devices import OverRuns
from experiments.common.report import Row
from experiments.common.study import Say
from experiments.common.tuning import choose_rate, run_keys, split
from experiments.lorenz.config import num_groups
from experiments.lorenz.system import ARMS, System, make_system

# The loss that counts is the mean over the last of the evaluations: the loss is a rugged function
# of the parameters, so that one evaluation says little.
LAST = 10


def staggered_states(
    estimator: artbp.GradientEstimator, system: System, groups: int, rng_key: jax.Array
) -> Any:
    """States of groups of particles, group g after g unrolls at the first parameters.

    So the groups are at different places of the trajectory, as the workers of the source are, and
    the mean of their gradients is over all unrolls of it.
    """
    begin = functools.partial(estimator.init, system.params, system.carry)
    states = jax.vmap(lambda key: begin(rng_key=key))(jax.random.split(rng_key, groups))

    def unroll(i: jax.Array, states: Any) -> Any:
        def select(new: jax.Array, old: jax.Array) -> jax.Array:
            is_late = (i < jnp.arange(groups)).reshape(-1, *[1] * (new.ndim - 1))
            return jnp.where(is_late, new, old)

        advanced = jax.vmap(estimator.estimate, (None, 0, None))
        return jax.tree.map(select, advanced(system.params, states, system.stream)[1], states)

    return jax.lax.fori_loop(0, groups, unroll, states)


def train(
    name: str, system: System, config: Any, rate: jax.Array, rng_key: jax.Array
) -> tuple[jax.Array, Any]:
    """(the loss at each point, `[num_points]`, the last parameters) of one training."""
    groups = num_groups(config)
    estimator = ARMS[name].build(system, config, config.num_particles // groups)

    def update(loop: Any, _: Any) -> tuple[Any, None]:
        params, states = loop
        estimates = jax.vmap(estimator.estimate, (None, 0, None))
        grads, states, _ = estimates(params, states, system.stream)
        params = jax.tree.map(lambda p, g: p - rate * jnp.mean(g, axis=0), params, grads)
        return (params, states), None

    def point(loop: Any, _: Any) -> tuple[Any, jax.Array]:
        loop, _ = jax.lax.scan(update, loop, length=config.num_updates // config.num_points)
        return loop, system.mean_loss(loop[0])

    loop = system.params, staggered_states(estimator, system, groups, rng_key)
    (params, _), losses = jax.lax.scan(point, loop, length=config.num_points)
    return losses, params


def run(config: Any, say: Say) -> list[Row]:
    """A row for each arm, with the losses of the reported runs at its best rate."""
    system, rates = make_system(config), jnp.array(config.learning_rates)
    tuning, reported = split(run_keys(config), config)
    first, rows = float(jax.jit(system.mean_loss)(system.params)), []
    for name, arm in ARMS.items():
        if name not in config.arms:
            continue
        say(f"Training with {arm.label}.")
        one = functools.partial(train, name, system, config)
        of_rates = OverRuns(jax.vmap(jax.vmap(one, (0, None)), (None, 0)), in_axes=(None, 0))
        losses, _ = of_rates(rates, tuning)
        choice = choose_rate(config.learning_rates, np.mean(losses[:, :, -LAST:], axis=-1))
        losses, params = of_rates(rates[choice.index : choice.index + 1], reported)
        losses = np.asarray(losses[:, 0], np.float64)
        rows.append(
            {
                "part": "training",
                "arm": name,
                "label": arm.label,
                "learning_rate": choice.rate,
                "rate_at_edge": choice.at_edge,
                "first_loss": first,
                "losses": losses.tolist(),
                "last_loss": losses[:, -LAST:].mean(axis=1).tolist(),
                "a": np.exp(np.asarray(params["log_a"][:, 0])).tolist(),
                "r": np.exp(np.asarray(params["log_r"][:, 0])).tolist(),
            }
        )
    return rows
