"""All arms: training at every rate, the choice of the rate, forecasts with the chosen one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from experiments.common.pool import in_threads
from experiments.teacher_forcing import data, forecasts, model
from experiments.teacher_forcing.training import NAMES, trainer


@dataclass(frozen=True)
class Arm:
    """An estimator, and for how many steps the network is fed its own forecasts."""

    estimator: str
    free_steps: int

    @property
    def label(self) -> str:
        """What is fed in training."""
        if self.free_steps == 0:
            return "teacher forcing"
        return f"fed back for {self.free_steps} steps"

    @property
    def full_label(self) -> str:
        """The same with the estimator."""
        return f"{NAMES[self.estimator]}, {self.label}"


@dataclass(frozen=True)
class ArmResult:
    """An arm at the rate chosen for it.

    Attributes:
        arm: which.
        rates: that were tried.
        scores: [rates], median over seeds of the mean validation error over horizons; infinite
            for a rate at which half of the seeds or more ended in NaN.
        chosen: index of the smallest score.
        errors: [seeds, max_horizon], normalised RMSE on the test windows at the chosen rate.
        training_loss: [seeds, bins], at the chosen rate.
    """

    arm: Arm
    rates: tuple[float, ...]
    scores: np.ndarray
    chosen: int
    errors: np.ndarray
    training_loss: np.ndarray

    @property
    def rate(self) -> float:
        """The chosen rate."""
        return self.rates[self.chosen]

    @property
    def at_edge(self) -> bool:
        """Whether a rate outside the grid might have been better."""
        return self.chosen in (0, len(self.rates) - 1)


@dataclass(frozen=True)
class Trained:
    """One arm and seed at all rates: losses [rates, bins], errors [rates, max_horizon]."""

    losses: np.ndarray
    validation_errors: np.ndarray
    test_errors: np.ndarray


@dataclass(frozen=True)
class Baselines:
    """Normalised RMSE, [max_horizon], on the test windows."""

    persistence: np.ndarray
    constant: np.ndarray


def run_arms(config: Any, say: Callable[[str], None]) -> tuple[list[ArmResult], Baselines]:
    """Trains every arm with every seed at every rate.

    Seed i has its own series, initial weights and boundaries, the same for all arms.

    Raises:
        TrainingInterruptedError: Ctrl-C. Trainings that had not started never will.
    """
    arms = [Arm(name, steps) for name in config.estimators for steps in config.free_steps]
    seeds = [config.seed + i for i in range(config.num_seeds)]
    training = {seed: data.series(2 * seed, config.batch_size, config.num_steps) for seed in seeds}
    shape = {"warm_up": config.warm_up, "max_horizon": config.max_horizon}
    validation = forecasts.windows(data.VALIDATION_SEED, config.num_windows, **shape)
    test = forecasts.windows(data.TEST_SEED, config.num_windows, **shape)

    def train(job: tuple[Arm, int]) -> Trained:
        arm, seed = job
        return _train(config, arm, seed, training[seed], validation, test)

    results = []
    jobs = [(arm, seed) for arm in arms for seed in seeds]
    trained = in_threads(train, jobs, config.num_threads)
    for number, arm in enumerate(arms, 1):
        result = choose(arm, config.learning_rates, [next(trained) for _ in seeds])
        results.append(result)
        say(f"[{number}/{len(arms)}] {arm.full_label}: rate {result.rate:g}")
    mean = float(np.mean([given.values.mean(dtype=np.float64) for given in training.values()]))
    return results, Baselines(
        persistence=forecasts.persistence(test, warm_up=config.warm_up),
        constant=forecasts.constant(test, mean, warm_up=config.warm_up),
    )


def choose(arm: Arm, rates: Sequence[float], trained: Sequence[Trained]) -> ArmResult:
    """The rate with the smallest validation error, and what it gives on the test windows."""
    by_seed = np.array([one.validation_errors.mean(axis=-1) for one in trained])
    scores = np.median(np.where(np.isfinite(by_seed), by_seed, np.inf), axis=0)
    chosen = int(np.argmin(scores))
    return ArmResult(
        arm=arm,
        rates=tuple(rates),
        scores=scores,
        chosen=chosen,
        errors=np.array([one.test_errors[chosen] for one in trained]),
        training_loss=np.array([one.losses[chosen] for one in trained]),
    )


def _train(
    config: Any,
    arm: Arm,
    seed: int,
    training: data.Series,
    validation: data.Series,
    test: data.Series,
) -> Trained:
    train = trainer(
        arm.estimator, config.mean_length, config.alpha, config.num_steps, config.batch_size
    )
    init_key, boundary_key = jax.random.split(jax.random.key(seed))
    params = model.init(init_key, config.hidden_size)
    stream = data.training_stream(
        training, truth_steps=config.truth_steps, free_steps=arm.free_steps
    )
    rates = np.asarray(config.learning_rates, np.float32)
    all_params, losses = train(params, rates, stream, boundary_key)
    return Trained(
        losses=np.asarray(losses),
        validation_errors=forecasts.normalised_errors(
            all_params, validation, warm_up=config.warm_up
        ),
        test_errors=forecasts.normalised_errors(all_params, test, warm_up=config.warm_up),
    )
