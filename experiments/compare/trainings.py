"""One contender on one problem: trained at every learning rate of the grid, at a fixed cost.

The rate is chosen by the median score over seeds, and the scores at that rate are the result. They
are those of the trainings that chose it: with a handful of rates and seeds the choice flatters
every contender alike, and a little.
"""

import functools
import math
import time
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import artbp
from experiments.common.tables import quartiles
from experiments.common.whole_run import train_whole
from experiments.compare.contenders import Contender
from experiments.compare.problems import Problem

# What TBPTT takes for a time step: the unit of the budget.
_EVALUATIONS_OF_TBPTT = 3


@dataclass(frozen=True)
class Result:
    """What became of a contender on a problem.

    Attributes:
        scores: [seeds], at the best rate; NaN or infinity for a training that diverged.
        rate: the best of the grid, and `at_edge`: whether it is the first or the last of it.
        num_steps, num_updates: time steps that the budget paid for, and updates in them.
        kilobytes: of temporaries and state of one estimate, by the compiler's account.
        seconds: of all its trainings, compilation included.
    """

    scores: np.ndarray
    rate: float
    at_edge: bool
    num_steps: int
    num_updates: int
    kilobytes: float
    seconds: float

    @property
    def score(self) -> tuple[float, float, float]:
        """Lower quartile, median and upper quartile."""
        return quartiles(self.scores)


def steps_within_budget(contender: Contender, problem: Problem, num_steps: int) -> int:
    """How many time steps cost what TBPTT costs in `num_steps`."""
    budget = _EVALUATIONS_OF_TBPTT * num_steps
    return max(1, math.floor(budget / contender.evaluations(problem.size)))


def train(config: Any, contender: Contender, problem: Problem) -> Result:
    """Trains at all rates, all seeds, and picks the best rate."""
    started = time.perf_counter()
    is_sgd = problem.optimizer == "sgd"
    # JAX's float64 switch belongs to the thread. The balancing acts need its range and precision.
    with jax.enable_x64(is_sgd):
        given = config.num_steps if is_sgd else config.num_learning_steps
        num_steps = steps_within_budget(contender, problem, given)
        scored = max(1, round(config.scored_part * num_steps))
        edges = np.unique([0, num_steps - scored, num_steps])
        estimator = contender.build(problem.cell, problem.loss_fn)
        rates = jnp.asarray(problem.rates)
        make_optimizer = functools.partial(_optimizer, problem.optimizer, contender.name)

        @jax.jit
        def run(params: Any, carry: Any, stream: artbp.Stream, key: jax.Array) -> Any:
            def at_rate(rate: jax.Array) -> Any:
                outcome = train_whole(
                    estimator, make_optimizer, rate, params, carry, stream, key, edges=edges
                )
                loss = outcome.loss[-1]
                # A last part without the beginning of a segment has no losses of its own.
                loss = jnp.where(jnp.isnan(loss), jnp.nanmean(outcome.loss), loss)
                return problem.score(outcome.params, loss), outcome.num_updates

            return jax.vmap(at_rate)(rates)

        num_seeds = config.num_seeds if contender.random or problem.always_random else 1
        scores, updates = [], []
        for seed in range(num_seeds):
            params, carry = problem.start(seed)
            stream = problem.stream(seed, num_steps)
            stream = jax.tree.map(jnp.asarray, stream)
            outcome = run(params, carry, stream, jax.random.key(seed))
            scores.append(np.asarray(outcome[0], np.float64))
            updates.append(int(np.max(outcome[1])))
        by_rate = np.stack(scores, axis=1)
        medians = [quartiles(row)[1] for row in by_rate]
        best = int(np.argmin(medians))
        kilobytes = _kilobytes(estimator, params, carry, stream)
    return Result(
        scores=by_rate[best],
        rate=problem.rates[best],
        at_edge=best in (0, len(problem.rates) - 1),
        num_steps=num_steps,
        num_updates=max(updates),
        kilobytes=kilobytes,
        seconds=time.perf_counter() - started,
    )


def _optimizer(kind: str, contender: str, rate: Any) -> optax.GradientTransformation:
    optimizer = _sgd_by_time_steps(rate) if kind == "sgd" else optax.adam(rate)
    if contender == "awd_lstm_bptt":  # the rate follows the length of the segment
        return optax.chain(optimizer, artbp.scale_by_learning_rate_factor())
    return optimizer


def _sgd_by_time_steps(rate: Any) -> optax.GradientTransformationExtraArgs:
    """SGD with rate/√(1 + t), t the time step that the update comes after."""

    def update(updates: Any, state: Any, params: Any = None, **extra: Any) -> tuple[Any, Any]:
        del params
        now = rate / jnp.sqrt(1.0 + extra["time_step"])
        return jax.tree.map(lambda grad: -now * grad, updates), state

    return optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)


def _kilobytes(
    estimator: artbp.GradientEstimator, params: Any, carry: Any, stream: artbp.Stream
) -> float:
    """Temporaries of an estimate that is given its state to reuse, and that state."""
    state = jax.eval_shape(lambda: estimator.init(params, carry, rng_key=jax.random.key(0)))
    step = jax.jit(estimator.estimate, donate_argnums=1)
    analysis = step.lower(params, state, stream).compile().memory_analysis()
    assert analysis is not None, "this backend does not say what a program needs"
    of_state = sum(
        leaf.size * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(state)
        if not jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    )
    return (analysis.temp_size_in_bytes + of_state) / 1000
