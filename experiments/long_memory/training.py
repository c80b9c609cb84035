"""Trains the arms on the tasks, several runs side by side, and scores them."""

import threading
from collections.abc import Hashable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import artbp
from experiments.common.divergence import all_finite
from experiments.common.pool import in_threads
from experiments.common.report import Row, median_and_range
from experiments.common.study import Say
from experiments.common.tuning import choose_rate, run_keys
from experiments.common.whole_run import train_whole
from experiments.long_memory import model
from experiments.long_memory.arms import Arm, arms
from experiments.long_memory.problems import LENGTH, PROBLEMS, Problem
from experiments.tasks import losses

TBPTT_WORK = 3  # evaluations per time step: the unit of the budget
# Two threads that make orthogonal matrices at the same time can wait for each other for ever, in
# JAX 0.10 on two cores.
_LOCK = threading.Lock()


def num_steps(arm: Arm, config: Any) -> int:
    """Returns the time steps of a training, in whole sequences: less where a step costs more."""
    return int(config.num_sequences * TBPTT_WORK / arm.work) * LENGTH


class Training:
    """The trainings of one arm on one task."""

    def __init__(self, problem: Problem, arm: Arm, config: Any):
        self.problem, self.arm, self.config = problem, arm, config
        self.cell = model.CELLS[arm.cell](config.window, config.forget_bias)
        self.num_steps = num_steps(arm, config)
        options = {"critic": model.critic} if arm.has_critic else {}
        self.estimator = arm.make(
            self.cell.apply,
            problem.loss_fn,
            normalizer=float(arm.window * config.batch),
            **options,
        )
        if arm.auxiliary:
            self.estimator = model.with_auxiliary_loss(
                self.estimator, arm, self.cell, problem, config
            )

    def _optimizer(self, rate: Any) -> optax.GradientTransformation:
        """The critic has a rate of its own."""
        if not self.arm.has_critic:
            return self.arm.optimizer(rate)
        rates: dict[Hashable, optax.GradientTransformation] = {
            "model": self.arm.optimizer(rate),
            "critic": optax.adam(self.config.critic_rate),
        }
        return optax.multi_transform(
            rates, lambda params: {n: "critic" if n == "critic" else "model" for n in params}
        )

    def init(self, keys: jax.Array) -> Any:
        """Returns the first params of runs with these keys, side by side."""
        with _LOCK:
            each = [model.init(key, self.arm, self.cell, self.problem, self.config) for key in keys]
            return jax.block_until_ready(_stack(each))

    def _train_one(
        self, rate: Any, rng_key: jax.Array, params: Any, stream: artbp.Stream, test: artbp.Stream
    ) -> tuple[jax.Array, jax.Array]:
        """Returns (the mean loss of each part of the training, the score in the test)."""
        edges = np.linspace(0, self.num_steps, self.config.num_points + 1).astype(int)
        carry = self.cell.initial_carry(params["cell"], self.config.batch)
        outcome = train_whole(
            self.estimator, self._optimizer, rate, params, carry, stream, rng_key, edges=edges
        )
        return outcome.loss, self.score(outcome.params, test)

    def score(self, params: Any, test: artbp.Stream) -> jax.Array:
        """Returns the score; NaN for params that are not finite."""
        rows = test.xs.shape[1]
        carry = self.cell.initial_carry(params["cell"], rows)
        _, ys = artbp.unroll(self.cell.apply, params, carry, test.xs)
        score = self.problem.score(losses.readout(params, ys), test)
        return jnp.where(all_finite(params), score, jnp.nan)

    def streams(self, numbers: list[int]) -> artbp.Stream:
        """Returns the streams of the runs of these numbers, side by side."""
        return _stack(
            self.problem.stream(self.config.seed + n, self.num_steps, self.config.batch)
            for n in numbers
        )

    def row(self) -> Row:
        """Returns the result of the arm: its rate, losses and scores."""
        config, rates = self.config, np.asarray(self.config.learning_rates, np.float32)
        init_keys, keys = jax.vmap(jax.random.split, out_axes=1)(run_keys(config))
        params, test = self.init(init_keys), self.problem.test(config.test_rows)
        numbers = np.arange(len(keys))
        # Runs side by side, each with a rate, a key, first params and a stream.
        train = jax.jit(jax.vmap(self._train_one, in_axes=(0, 0, 0, 0, None)))
        tuned = []
        for n in numbers[: config.num_tuning_runs]:
            same = np.repeat(n, len(rates))
            loss, _ = train(rates, *self._runs(keys, params, same), test)
            tuned.append(np.asarray(loss)[:, -(config.num_points // 4) :].mean(axis=1))
        choice = choose_rate(config.learning_rates, tuned)
        reported = numbers[config.num_tuning_runs :]
        best = np.full(len(reported), choice.rate, np.float32)
        loss, scores = train(best, *self._runs(keys, params, reported), test)
        return {
            "learning_rate": choice.rate,
            "rate_at_edge": choice.at_edge,
            "tuning_loss": list(choice.scores),
            "losses": np.round(np.asarray(loss, np.float64), 5).tolist(),
            "scores": np.round(np.asarray(scores, np.float64), 5).tolist(),
            "num_steps": self.num_steps,
            "num_params": sum(leaf[0].size for leaf in jax.tree.leaves(params)),
        }

    def _runs(self, keys: jax.Array, params: Any, numbers: np.ndarray) -> tuple[Any, Any, Any]:
        """Returns the keys, first params and streams of the runs of these numbers."""
        distinct, places = np.unique(numbers, return_inverse=True)
        streams = jax.tree.map(lambda leaf: leaf[places], self.streams(distinct.tolist()))
        return keys[numbers], jax.tree.map(lambda leaf: leaf[numbers], params), streams


def _stack(trees: Iterable[Any]) -> Any:
    return jax.tree.map(lambda *leaves: np.stack(leaves), *trees)


def run(config: Any, say: Say) -> list[Row]:
    """Returns a row for each task and arm."""
    problems = {name: PROBLEMS[name](config.text) for name in config.tasks}
    jobs = [(task, arm) for task in config.tasks for arm in config.arms]

    def row(job: tuple[str, str]) -> Row:
        task, name = job
        arm = arms(config.window)[name]
        training = Training(problems[task], arm, config)
        return {"task": task, "arm": name, "label": arm.label, "work": arm.work} | training.row()

    def words(job: tuple[str, str], row: Row) -> str:
        return f"{problems[job[0]].label}, {row['label']}: {median_and_range(row['scores'])}"

    return list(in_threads(row, jobs, config.num_threads, say=say, words=words))
