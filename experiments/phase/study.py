"""The predicted map, and the points of it that are trained."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from experiments.common.arms import Arm
from experiments.common.pool import in_threads
from experiments.common.study import Say
from experiments.phase import training
from experiments.phase.config import rates
from experiments.phase.prediction import Gradient, artbp_gradient, excess_loss, tbptt_gradient
from experiments.phase.system import System


class Predicted(NamedTuple):
    """The least excess loss over the rates, and the rate; infinity and NaN where there is none."""

    excess: float
    rate: float


class Point(NamedTuple):
    """One trained point. Lists follow the arms.

    Attributes:
        memory: τ ÷ L0.
        batch: rows.
        unbiased: of each arm: whether it is of the kind ARTBP, or TBPTT.
        predicted, trained: of each arm.
    """

    memory: float
    batch: int
    unbiased: list[bool]
    predicted: list[Predicted]
    trained: list[training.Trained]

    @property
    def predicted_winner(self) -> int:
        """Index of the arm with the least predicted excess."""
        return int(np.argmin([one.excess for one in self.predicted]))

    @property
    def observed_winner(self) -> int:
        """Index of the arm with the least mean excess over the seeds reported."""
        return self._best(range(len(self.trained)))

    @property
    def difference(self) -> tuple[float, float]:
        """Excess of the best of the other kind minus that of the best of the predicted kind.

        Returns:
            (mean over paired seeds, its standard error); ±infinity and 0 where trainings of one of
            them did not end with finite numbers.
        """
        kind = self.unbiased[self.predicted_winner]
        own, other = (
            self.trained[self._best([i for i, u in enumerate(self.unbiased) if u == wanted])].excess
            for wanted in (kind, not kind)
        )
        for excess, sign in ((own, -1), (other, 1)):
            if not np.all(np.isfinite(excess)):
                return sign * np.inf, 0.0
        found = other - own
        return float(found.mean()), float(found.std(ddof=1) / np.sqrt(len(found)))

    @property
    def verdict(self) -> str:
        """Whether the predicted kind won, by two standard errors: "yes", "tie" or "no"."""
        mean, error = self.difference
        if abs(mean) <= 2 * error:
            return "tie"
        return "yes" if mean > 0 else "no"

    def _best(self, among: Iterable[int]) -> int:
        means = {i: float(self.trained[i].excess.mean()) for i in among}
        return min(means, key=lambda i: means[i] if np.isfinite(means[i]) else np.inf)


class Map(NamedTuple):
    """Attributes:
    memories: τ ÷ L0, `[M]`.
    batches: `[N]`.
    excess: least over the rates, `[arms, M, N]`.
    """

    memories: np.ndarray
    batches: np.ndarray
    excess: np.ndarray


def predict_map(config: Any, arms: Sequence[Arm]) -> Map:
    """Predictions on a grid, in factors of √2 of the memory and 2 of the rows."""
    memories = _powers(config.memories, np.sqrt(2.0))
    batches = np.unique(_powers(config.batches, 2.0).round().astype(int))
    excess = np.full((len(arms), len(memories), len(batches)), np.inf)
    for i, memory in enumerate(memories):
        system = make_system(config, memory)
        for e, arm in enumerate(arms):
            gradient = gradient_of(arm, system)
            for j, batch in enumerate(batches):
                excess[e, i, j] = predict(config, system, gradient, int(batch)).excess
    return Map(memories, batches, excess)


def gradient_of(arm: Arm, system: System) -> Gradient | None:
    """What the prediction knows of an arm; None where its variance is infinite."""
    if arm.name == "tbptt":
        return tbptt_gradient(system, arm.length)
    assert arm.law is not None
    return artbp_gradient(system, arm.law, arm.length)


def predict(config: Any, system: System, gradient: Gradient | None, batch: int) -> Predicted:
    """The best that SGD at one of the rates is predicted to end with."""
    if gradient is None:
        return Predicted(np.inf, np.nan)
    tried = [
        Predicted(
            excess_loss(system, gradient, batch, rate, config.start, config.num_steps), float(rate)
        )
        for rate in rates(config)
    ]
    return min(tried)


def train_points(config: Any, arms: Sequence[Arm], say: Say) -> list[Point]:
    """Trains every arm at every point of the configuration.

    Raises:
        TrainingInterruptedError: Ctrl-C.
    """
    jobs = [(arm, batch) for batch in config.trained_batches for arm in arms]

    def of_batch(job: tuple[Arm, int]) -> dict[float, training.Trained]:
        arm, batch = job
        run = training.make_run(arm, batch, config.num_steps)
        found = {}
        for memory in config.trained_memories:
            found[memory] = training.train(run, make_system(config, memory), rates(config), config)
            mean = found[memory].excess.mean()
            say(f"{arm.label}, {batch} rows, memory {memory:g} L0: {mean:.3g}")
        return found

    trained = dict(zip(jobs, in_threads(of_batch, jobs, config.num_threads), strict=True))
    unbiased = [arm.claims.unbiased for arm in arms]
    points = []
    for memory in config.trained_memories:
        system = make_system(config, memory)
        gradients = [gradient_of(arm, system) for arm in arms]
        for batch in config.trained_batches:
            predicted = [predict(config, system, gradient, batch) for gradient in gradients]
            found = [trained[arm, batch][memory] for arm in arms]
            points.append(Point(memory, batch, unbiased, predicted, found))
    return points


def make_system(config: Any, memory: float) -> System:
    """The system whose memory is so many times L0."""
    return System(memory * config.mean_length, config.later_power, config.noise)


def _powers(limits: Sequence[float], factor: float) -> np.ndarray:
    least, most = limits
    number = round(np.log(most / least) / np.log(factor)) + 1
    return np.geomspace(float(least), float(most), number)
