"""Predicts the maps, and trains at some of their points."""

import functools
import itertools
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import artbp
from experiments.common import tuning
from experiments.common.arms import Arm
from experiments.common.devices import OverRuns
from experiments.common.pool import in_threads
from experiments.common.study import Say
from experiments.common.tuning import Choice, choose_rate
from experiments.common.whole_run import train_whole
from experiments.phase.budget import EQUAL, time_steps
from experiments.phase.config import rates
from experiments.phase.prediction import (
    Gradient,
    artbp_gradient,
    excess_loss,
    tbptt_gradient,
    unbiased_tbptt_gradient,
)
from experiments.phase.system import System, cell, initial_carry, loss_fn, make_stream


class Predicted(NamedTuple):
    """The least excess loss over the rates, and the rate; infinity and NaN where there is none."""

    excess: float
    rate: float


class Trained(NamedTuple):
    """The chosen rate, and ½ Λ (θ − θ*)² at the end of each reported seed, `[seeds]`."""

    choice: Choice
    excess: np.ndarray


class Point(NamedTuple):
    """One trained point of the map of `equal`, at the memory τ ÷ L0. Lists follow the arms.

    `kinds` holds the kind of each arm, a key of `budget.KINDS`.
    """

    equal: str
    memory: float
    batch: int
    kinds: list[str]
    predicted: list[Predicted]
    trained: list[Trained]

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
        """Excess of the best of the other kinds minus that of the best of the predicted kind.

        Mean over paired seeds, and its standard error; ±infinity and 0 where trainings of one of
        them did not end with finite numbers.
        """
        is_own = [kind == self.kinds[self.predicted_winner] for kind in self.kinds]
        own, other = (
            self.trained[self._best([i for i, own in enumerate(is_own) if own == wanted])].excess
            for wanted in (True, False)
        )
        for excess, sign in ((own, -1), (other, 1)):
            if not np.all(np.isfinite(excess)):
                return sign * np.inf, 0.0
        found = other - own
        return float(found.mean()), float(found.std(ddof=1) / np.sqrt(len(found)))

    @property
    def verdict(self) -> str:
        """Says whether the predicted kind won, by two standard errors: "yes", "tie" or "no"."""
        mean, error = self.difference
        if abs(mean) <= 2 * error:
            return "tie"
        return "yes" if mean > 0 else "no"

    def _best(self, among: Iterable[int]) -> int:
        means = {i: float(self.trained[i].excess.mean()) for i in among}
        return min(means, key=lambda i: means[i] if np.isfinite(means[i]) else np.inf)


class Map(NamedTuple):
    """The least predicted excess, `[arms, M, N]`, at memories τ ÷ L0 `[M]` and batches `[N]`."""

    memories: np.ndarray
    batches: np.ndarray
    excess: np.ndarray


def predict_map(config: Any, arms: Sequence[Arm], equal: str) -> Map:
    """Predicts on a grid, in factors of √2 of the memory and 2 of the rows."""

    def powers(limits: Sequence[float], factor: float) -> np.ndarray:
        least, most = map(float, limits)
        return np.geomspace(least, most, round(np.log(most / least) / np.log(factor)) + 1)

    memories = powers(config.memories, np.sqrt(2.0))
    batches = np.unique(powers(config.batches, 2.0).round().astype(int))
    systems = [make_system(config, memory) for memory in memories]
    excess = [
        [
            [predict(config, system, arm, int(b), equal).excess for b in batches]
            for system in systems
        ]
        for arm in arms
    ]
    return Map(memories, batches, np.array(excess))


def make_system(config: Any, memory: float) -> System:
    """Makes the system whose memory is so many times L0."""
    return System(memory * config.mean_length, config.later_power, config.noise)


@functools.cache
def gradient_of(arm: Arm, system: System) -> Gradient | None:
    """Returns bias and variance of an arm; None where its variance is infinite."""
    if arm.name == "tbptt":
        return tbptt_gradient(system, arm.length)
    if arm.look_back is not None:
        return unbiased_tbptt_gradient(system, arm.look_back, arm.length)
    assert arm.law is not None
    return artbp_gradient(system, arm.law, arm.length)


def predict(config: Any, system: System, arm: Arm, batch: int, equal: str) -> Predicted:
    """Returns the least excess loss that is predicted for SGD at one of the rates."""
    gradient = gradient_of(arm, system)
    if gradient is None:
        return Predicted(np.inf, np.nan)
    start, num_steps = config.start, time_steps(config, arm, equal)
    return min(
        Predicted(excess_loss(system, gradient, batch, rate, start, num_steps), float(rate))
        for rate in rates(config)
    )


def train_points(config: Any, arms: Sequence[Arm], say: Say) -> list[Point]:
    """Trains every arm at every point; TrainingInterruptedError where Ctrl-C stops it."""
    batches, memories = config.trained_batches, config.trained_memories
    # Most arms have the same time steps in both maps, and are trained once.
    jobs = list(
        dict.fromkeys(
            (arm, batch, time_steps(config, arm, equal))
            for batch in batches
            for arm in arms
            for equal in EQUAL
        )
    )

    def of_job(job: tuple[Arm, int, int]) -> dict[float, Trained]:
        arm, batch, num_steps = job
        run = make_run(config, arm, batch, num_steps)
        found = {}
        for memory in memories:
            found[memory] = train(config, run, make_system(config, memory))
            mean = found[memory].excess.mean()
            words = f"{arm.label}, {batch} rows, {num_steps} steps, memory {memory:g} L0"
            say(f"{words}: {mean:.3g}")
        return found

    trained = dict(zip(jobs, in_threads(of_job, jobs, config.num_threads), strict=True))
    points = []
    for equal, memory, batch in itertools.product(EQUAL, memories, batches):
        system = make_system(config, memory)
        predicted = [predict(config, system, arm, batch, equal) for arm in arms]
        found = [trained[arm, batch, time_steps(config, arm, equal)][memory] for arm in arms]
        kinds = [arm.name for arm in arms]
        points.append(Point(equal, memory, batch, kinds, predicted, found))
    return points


def make_run(config: Any, arm: Arm, batch: int, num_steps: int) -> Any:
    """Compiles `run(rates, keys, start, (ρ, g, σ)) -> θ at the end [keys, rates]`."""
    options: dict[str, Any] = {"normalizer": float(batch)}
    if arm.look_back is not None:
        options["stored_carries"] = config.stored_carries
    estimator = arm.build(cell, loss_fn, **options)
    edges = np.array([0, num_steps])

    def run(rates: jax.Array, keys: jax.Array, start: jax.Array, numbers: Any) -> jax.Array:
        decay, gain, noise = numbers

        def of_key(key: jax.Array) -> jax.Array:
            data_key, cut_key = jax.random.split(key)
            # A shorter training has the first steps of the same stream.
            stream = make_stream(data_key, decay, gain, noise, config.num_steps, batch)
            stream = artbp.Stream(stream.xs[:num_steps], stream.targets[:num_steps])
            given = {"theta": start}, initial_carry(decay, gain, batch), stream, cut_key

            def at_rate(rate: jax.Array) -> jax.Array:
                return train_whole(estimator, optax.sgd, rate, *given, edges=edges).params["theta"]

            # All rates cut at the same steps, so that none waits for another.
            return jax.vmap(at_rate)(rates)

        return jax.lax.map(of_key, keys)

    return OverRuns(run, in_axes=(None, 0, None, None))


def train(config: Any, run: Any, system: System) -> Trained:
    """Tunes and trains one arm on one system, by its `run`. Seeds are common to all arms."""
    numbers = tuple(jnp.float32(x) for x in (system.decay, system.gain, system.noise))
    # Every rate on every seed: one program, and the other rates cost next to nothing.
    keys, start = tuning.run_keys(config), jnp.float32(config.start)
    theta = run(jnp.asarray(rates(config), jnp.float32), keys, start, numbers)
    excess = 0.5 * system.curvature * (np.asarray(theta, np.float64) - system.optimum) ** 2
    tuned, reported = tuning.split(excess, config)
    choice = choose_rate(rates(config), tuned)
    return Trained(choice, reported[:, choice.index])
