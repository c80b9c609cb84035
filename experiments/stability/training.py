"""(ii) What becomes of training: every arm at a common grid of learning rates."""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

import artbp
from experiments.common.arms import Arm, parse
from experiments.common.devices import OverRuns
from experiments.common.pool import in_threads, made_alone
from experiments.common.report import Row
from experiments.common.study import Say
from experiments.common.tuning import choose_rate
from experiments.common.whole_run import train_whole
from experiments.stability import system
from experiments.stability.config import trained
from experiments.stability.system import Clip

# A training has failed when its last loss is above this, with a target of variance 1: predicting
# the mean gives 1.
FAILED_ABOVE = 2.0


def run(config: Any, say: Say) -> list[Row]:
    """Trains each arm from each radius, at each rate, with each seed; `clipped_arm` also for (iv).

    A seed decides the sequences, the weights but for the factor ρ, and the boundaries.
    """

    def train(arm: Arm) -> list[Row]:
        given = cases(config, arm)
        with jax.enable_x64(True):  # a thread begins with JAX's defaults
            losses = final_losses(config, arm, given)
        reported, tuning = losses[: config.num_seeds], losses[config.num_seeds :]
        rows = [case | outcome(reported[:, i]) for i, case in enumerate(given)]
        num_rates = len(config.learning_rates)
        for i in range(0, sum(row["part"] == "training" for row in rows), num_rates):
            one = slice(i, i + num_rates)
            rows[one] = choose(rows[one], tuning[:, one])
        return rows

    arms = dict.fromkeys([*(arm for arm, _, _ in trained(config)), parse(config.clipped_arm)])
    found = in_threads(
        train,
        list(arms),
        config.num_threads,
        expense=lambda arm: arm.claims.random,
        say=say,
        words=lambda arm, rows: f"(ii) {arm.label}",
    )
    return [row for rows in found for row in rows]


def cases(config: Any, arm: Arm) -> list[Row]:
    """What is trained with one arm: its cases of (ii), then those of (iv)."""
    bounds = {"": (), "norm": (config.clip_norm,), "value": (np.inf, config.clip_value)}
    radii, rates = config.spectral_radii, config.learning_rates
    wanted = [
        ("training", label, Clip(*bounds[clip]), radii, rates)
        for one, clip, label in trained(config)
        if one == arm
    ]
    if arm == parse(config.clipped_arm):
        radii, rates = (config.clipping_radius,), config.clipping_learning_rates
        for bound in (*config.clip_bounds, np.inf):
            wanted.append(("progress", arm.label, Clip(norm_bound=bound), radii, rates))
    return [
        {"part": part, "label": label, "spectral_radius": radius, "learning_rate": rate}
        | clip._asdict()
        for part, label, clip, radii, rates in wanted
        for radius in radii
        for rate in rates
    ]


def outcome(losses: np.ndarray) -> Row:
    """What became of the reported runs; a loss that is no number counts as infinite."""
    losses = np.where(np.isnan(losses), np.inf, losses)
    row = {"failed": float(np.mean(losses > FAILED_ABOVE)), "loss_median": float(np.median(losses))}
    row |= {"loss_smallest": float(losses.min()), "loss_largest": float(losses.max())}
    return row | {"num_seeds": len(losses)}


def choose(rows: Sequence[Row], losses: np.ndarray) -> list[Row]:
    """The rows of one arm and radius, one for each rate, with the choice among them.

    A tuning run that fails counts as infinite, so that its rate is not chosen. `losses`: [tuning
    runs, rates].
    """
    rates = [row["learning_rate"] for row in rows]
    choice = choose_rate(rates, np.where(losses <= FAILED_ABOVE, losses, np.inf))
    return [
        row | {"tuning_loss": score, "chosen": i == choice.index, "rate_at_edge": choice.at_edge}
        for i, (row, score) in enumerate(zip(rows, choice.scores, strict=True))
    ]


def final_losses(config: Any, arm: Arm, cases: Sequence[Row]) -> np.ndarray:
    """The loss of the last tenth of the sequences, [runs, cases]: the reported runs come first."""
    length, number = config.sequence_length, config.num_sequences
    estimator = system.make_estimator(arm, config)
    edges = length * np.array([0, number - max(1, number // 10), number])

    def train(
        radius: Any, rate: Any, bounds: Any, params: Any, key: jax.Array, stream: artbp.Stream
    ) -> Any:
        params = system.with_radius(params, radius)
        carry = system.core.initial_carry(params["cell"], config.num_rows)
        optimizer = functools.partial(system.clipped_sgd, bounds=bounds)
        given = rate, params, carry, stream, key
        return train_whole(estimator, optimizer, *given, edges=edges).loss[-1]

    # One key at a time: all cases of a program then cut at the same steps.
    in_axes = (0, 0, 0, None, None, None)
    compiled = OverRuns(jax.vmap(train, in_axes), in_axes)
    fields = ("spectral_radius", "learning_rate", *Clip._fields)
    radii, rates, *bounds = (np.array([case[field] for case in cases]) for field in fields)
    losses = []
    for seed in range(config.seed, config.seed + config.num_seeds + config.num_tuning_runs):
        stream = system.sequences(config, 2 * seed, number)
        init_key, boundary_key = jax.random.split(jax.random.key(seed))
        params = made_alone(system.init, init_key, config.hidden_size, 1.0)
        losses.append(compiled(radii, rates, Clip(*bounds), params, boundary_key, stream))
    return np.array(losses)
