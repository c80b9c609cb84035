"""Trains one arm on one system at every learning rate of the grid, at a fixed cost.

Tuning runs choose the rate; other seeds are reported. Where neither the arm nor the system draws
random numbers, all seeds give the same training, and it runs once.
"""

import functools
import math
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import artbp
from experiments.common.arms import Arm, kilobytes
from experiments.common.devices import OverRuns
from experiments.common.divergence import all_finite
from experiments.common.optimizers import rate_by_time_step
from experiments.common.pool import made_alone
from experiments.common.report import Row, quartiles
from experiments.common.tuning import choose_rate
from experiments.common.whole_run import train_whole
from experiments.compare.systems import System

# What TBPTT takes for a time step: the unit of the budget.
_EVALUATIONS_OF_TBPTT = 3


def steps_within_budget(arm: Arm, system: System, num_steps: int) -> int:
    """Returns how many time steps cost as much as `num_steps` steps of TBPTT."""
    budget = _EVALUATIONS_OF_TBPTT * num_steps
    return max(1, math.floor(budget / arm.evaluations(system.size)))


def train(config: Any, system: System, arm: Arm) -> Row:
    """Returns the scores of an arm on a system, NaN or infinite for a run that diverged.

    "kilobytes" is the memory of one estimate, "seconds" the time of all trainings, compilation
    included.
    """
    started = time.perf_counter()
    is_sgd = system.optimizer == "sgd"
    # JAX's float64 switch belongs to the thread. Influence balancing needs its range and precision.
    with jax.enable_x64(is_sgd):
        num_steps = config.num_steps if is_sgd else config.num_learning_steps
        num_steps = steps_within_budget(arm, system, num_steps)
        scored = max(1, round(config.scored_part * num_steps))
        edges = np.unique([0, num_steps - scored, num_steps])
        estimator = arm.build(system.cell, system.loss_fn)
        make_optimizer = functools.partial(_optimizer, system.optimizer, arm)

        def run(
            rates: jax.Array, params: Any, carry: Any, stream: artbp.Stream, key: jax.Array
        ) -> Any:
            def at_rate(rate: jax.Array) -> Any:
                outcome = train_whole(
                    estimator, make_optimizer, rate, params, carry, stream, key, edges=edges
                )
                loss = outcome.loss[-1]
                # A last part without the beginning of a segment has no losses of its own.
                no_losses = jnp.isnan(loss) & all_finite(outcome.params)
                loss = jnp.where(no_losses, jnp.nanmean(outcome.loss), loss)
                return system.score(outcome.params, loss), outcome.num_updates

            return jax.vmap(at_rate)(rates)

        run_rates, rates = OverRuns(run, (0, None, None, None, None)), jnp.asarray(system.rates)

        def given(seed: int) -> Any:
            stream = jax.tree.map(jnp.asarray, system.stream(seed, num_steps))
            return *made_alone(system.start, seed), stream

        is_random = arm.claims.random or system.always_random
        num_seeds = config.num_seeds if is_random else 1
        num_tuning_runs = config.num_tuning_runs if is_random else 0
        scores, updates = [], []
        for seed in range(num_seeds + num_tuning_runs):
            found, num_updates = run_rates(rates, *given(seed), jax.random.key(seed))
            scores.append(np.asarray(found, np.float64))
            updates.append(np.asarray(num_updates))
        choice = choose_rate(system.rates, scores[num_seeds:] or scores)
        lower, median, upper = quartiles(np.stack(scores[:num_seeds])[:, choice.index])
        memory = kilobytes(estimator, *given(0))
    return {
        "score_lower_quartile": lower,
        "score_median": median,
        "score_upper_quartile": upper,
        "num_seeds": num_seeds,
        "rate": choice.rate,
        "rate_at_edge": choice.at_edge,
        "tuning_scores": choice.scores,
        "evaluations_per_time_step": arm.evaluations(system.size),
        "num_steps": num_steps,
        "num_updates": int(np.stack(updates)[:num_seeds, choice.index].max()),
        "kilobytes": memory,
        "seconds": time.perf_counter() - started,
    }


def _optimizer(kind: str, arm: Arm, rate: Any) -> optax.GradientTransformation:
    falling = rate_by_time_step(lambda t: rate / jnp.sqrt(1.0 + t))
    optimizer = falling if kind == "sgd" else arm.optimizer(rate)
    if arm.name == "awd_lstm_bptt":  # the rate follows the length of the segment
        return optax.chain(optimizer, artbp.scale_by_learning_rate_factor())
    return optimizer
