"""Trains the arms on the tasks, several runs side by side, and scores them."""

import dataclasses
from collections.abc import Hashable, Iterable
from typing import Any

import jax
import numpy as np
import optax

import artbp
from experiments.common.devices import OverRuns
from experiments.common.divergence import all_finite
from experiments.common.pool import in_threads, made_alone
from experiments.common.report import Row
from experiments.common.study import Say
from experiments.common.tuning import choose_rate, run_keys, split
from experiments.common.whole_run import train_whole
from experiments.long_memory import model
from experiments.long_memory.arms import Arm, arms
from experiments.long_memory.problems import LENGTH, PROBLEMS, Problem
from experiments.tasks import losses

TBPTT_WORK = 3  # evaluations per time step: the unit of the budget


def num_steps(arm: Arm, config: Any) -> int:
    """Returns the time steps of a training, in whole sequences: less where a step costs more."""
    return int(config.num_sequences * TBPTT_WORK / arm.work) * LENGTH


class Program:
    """The trainings of one arm, compiled once for all tasks whose inputs and outputs are alike."""

    def __init__(self, problem: Problem, arm: Arm, config: Any):
        self.arm, self.config = arm, config
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
        # Runs side by side, each with a rate, first params, a stream and a key.
        self.train = OverRuns(jax.vmap(self._train_one), in_axes=(0, 0, 0, 0))
        self._outputs = jax.jit(self._run)

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

    def init(self, problem: Problem, keys: jax.Array) -> Any:
        """Returns the first params of runs with these keys, side by side."""
        given = self.arm, self.cell, problem, self.config
        return _stack([made_alone(model.init, key, *given) for key in keys])

    def _train_one(
        self, rate: Any, params: Any, stream: artbp.Stream, rng_key: jax.Array
    ) -> tuple[jax.Array, Any]:
        """Returns (the mean loss of each part of the training, the last params).

        It reads the first `num_steps` steps of the stream.
        """
        stream = dataclasses.replace(
            jax.tree.map(lambda leaf: leaf[: self.num_steps], stream), num_steps=self.num_steps
        )
        edges = np.linspace(0, self.num_steps, self.config.num_points + 1).astype(int)
        carry = self.cell.initial_carry(params["cell"], self.config.batch)
        outcome = train_whole(
            self.estimator, self._optimizer, rate, params, carry, stream, rng_key, edges=edges
        )
        return outcome.loss, outcome.params

    def _run(self, params: Any, xs: jax.Array) -> jax.Array:
        """Returns the outputs of the model, `[T, B, ...]`."""
        carry = self.cell.initial_carry(params["cell"], xs.shape[1])
        _, ys = artbp.unroll(self.cell.apply, params, carry, xs)
        return losses.readout(params, ys)

    def score(self, problem: Problem, params: Any, test: artbp.Stream) -> float:
        """Returns the score; NaN for params that are not finite."""
        if not all_finite(params):
            return np.nan
        return float(problem.score(self._outputs(params, test.xs), test))

    def row(self, problem: Problem, streams: artbp.Stream) -> Row:
        """Returns the result on a task: the rate, losses and scores.

        Args:
            problem: the task, with inputs and outputs like those of the program.
            streams: those of all runs, `[runs, T, B, ...]`; the first time steps are used.
        """
        config, rates = self.config, np.asarray(self.config.learning_rates, np.float32)
        init_keys, keys = jax.vmap(jax.random.split, out_axes=1)(run_keys(config))
        params = self.init(problem, init_keys)
        numbers = np.arange(len(keys))
        tuning, reported = split(numbers, config)

        def train(rates: np.ndarray, runs: np.ndarray) -> tuple[np.ndarray, Any]:
            loss, trained = self.train(rates, _take(params, runs), _take(streams, runs), keys[runs])
            return np.asarray(loss, np.float64), trained

        tuned = []
        for n in tuning:
            loss, _ = train(rates, np.repeat(n, len(rates)))
            tuned.append(loss[:, -(config.num_points // 4) :].mean(axis=1))
        choice = choose_rate(config.learning_rates, tuned)
        loss, trained = train(np.full(len(reported), choice.rate, np.float32), reported)
        test = problem.test(config.test_rows)
        scores = [self.score(problem, _take(trained, n), test) for n in range(len(reported))]
        return {
            "learning_rate": choice.rate,
            "rate_at_edge": choice.at_edge,
            "tuning_loss": list(choice.scores),
            "losses": np.round(loss, 5).tolist(),
            "scores": np.round(scores, 5).tolist(),
            "num_steps": self.num_steps,
            "num_params": sum(leaf[0].size for leaf in jax.tree.leaves(params)),
        }


def _take(tree: Any, runs: Any) -> Any:
    """Returns the given runs of every leaf."""
    return jax.tree.map(lambda leaf: leaf[runs], tree)


def _stack(trees: Iterable[Any]) -> Any:
    return jax.tree.map(lambda *leaves: np.stack(leaves), *trees)


def make_streams(problem: Problem, num_steps: int, config: Any) -> artbp.Stream:
    """Returns the streams of all runs side by side. Every arm reads the first part of them."""
    numbers = range(config.num_tuning_runs + config.num_seeds)
    return _stack(problem.stream(config.seed + n, num_steps, config.batch) for n in numbers)


def run(config: Any, say: Say) -> list[Row]:
    """Returns a row for each task and arm."""
    problems = {name: PROBLEMS[name](config.text) for name in config.tasks}
    chosen = {name: arms(config.window)[name] for name in config.arms}
    longest = max(num_steps(arm, config) for arm in chosen.values())
    streams = {name: make_streams(one, longest, config) for name, one in problems.items()}

    def rows_of_arm(name: str) -> list[Row]:
        arm, programs, rows = chosen[name], {}, []
        for task, problem in problems.items():
            alike = problem.loss_fn, problem.input_size, problem.output_size
            if alike not in programs:
                programs[alike] = Program(problem, arm, config)
            row = {"task": task, "arm": name, "label": arm.label, "work": arm.work}
            rows.append(row | programs[alike].row(problem, streams[task]))
        return rows

    def words(name: str, rows: list[Row]) -> str:
        named = ((problems[row["task"]], row["scores"]) for row in rows)
        scores = (f"{problem.label} {problem.words(scores)}" for problem, scores in named)
        return f"{chosen[name].label}: {', '.join(scores)}"

    found = in_threads(rows_of_arm, list(chosen), config.num_threads, say=say, words=words)
    by_arm = list(found)
    return [row for of_task in zip(*by_arm, strict=True) for row in of_task]
