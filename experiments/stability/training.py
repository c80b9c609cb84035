"""(ii) What becomes of training: every arm at a common grid of learning rates."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import numpy as np

import artbp
from experiments.common.pool import in_threads
from experiments.common.report import Row
from experiments.common.whole_run import train_whole
from experiments.stability import methods, system

# A training has failed when its last loss is above this, with a target of variance 1: predicting
# the mean gives 1.
FAILED_ABOVE = 2.0


@dataclass(frozen=True)
class Arm:
    """A truncation with a way of clipping: "none", "norm" or "value"."""

    label: str
    truncation: str
    clip: str

    def bounds(self, config: Any) -> methods.Clip:
        """Those of the configuration."""
        if self.clip == "norm":
            return methods.Clip(norm=config.clip_norm)
        return methods.Clip(value=config.clip_value) if self.clip == "value" else methods.Clip()


ARMS = (
    Arm("TBPTT", "tbptt", "none"),
    Arm("BPTT", "bptt", "none"),
    Arm("BPTT, clipped by norm", "bptt", "norm"),
    Arm("ARTBP", "artbp_polynomial", "none"),
    Arm("ARTBP, clipped by norm", "artbp_polynomial", "norm"),
    Arm("ARTBP, clipped by value", "artbp_polynomial", "value"),
)


class Case(NamedTuple):
    """One training: from which spectral radius, at which rate, with which clipping.

    Attributes:
        tags: of its row: what it is about.
        radius, rate, bounds: what it is.
    """

    tags: Row
    radius: float
    rate: float
    bounds: methods.Clip


def run(config: Any, say: Callable[[str], None]) -> list[Row]:
    """Trains each arm from each spectral radius, at each rate, with each seed; and the cases of
    (iv), ARTBP with several bounds on the norm, which are compiled with the arms of ARTBP.

    The same seed means the same sequences, the same weights but for the factor ρ, and, for ARTBP,
    the same boundaries.

    Raises:
        TrainingInterruptedError: Ctrl-C.
    """

    def train(truncation: str) -> list[Row]:
        cases = arm_cases(config, truncation)
        if truncation == "artbp_polynomial":
            cases += progress_cases(config)
        with jax.enable_x64(True):  # a thread begins with JAX's defaults
            losses = final_losses(config, truncation, cases)
        say(f"trained: {methods.NAMES[truncation]}")
        return [outcome_row(case, losses[:, i]) for i, case in enumerate(cases)]

    # The longest first, so that no thread is left with it at the end.
    names = ("artbp_polynomial", "bptt", "tbptt")
    return [row for rows in in_threads(train, names, config.num_threads) for row in rows]


def arm_cases(config: Any, truncation: str) -> list[Case]:
    """(ii): the arms of one truncation, at all spectral radii and rates."""
    return [
        Case({"part": "training", "arm": arm.label}, radius, rate, arm.bounds(config))
        for arm in ARMS
        if arm.truncation == truncation
        for radius in config.spectral_radii
        for rate in config.learning_rates
    ]


def progress_cases(config: Any) -> list[Case]:
    """(iv): several bounds on the norm, and none, at several rates."""
    return [
        Case({"part": "progress"}, config.clipping_radius, rate, methods.Clip(norm=bound))
        for rate in config.clipping_learning_rates
        for bound in (*config.clip_bounds, np.inf)
    ]


def outcome_row(case: Case, losses: np.ndarray) -> Row:
    """What became of one case, over seeds; a loss that is no number counts as infinite."""
    losses = np.where(np.isnan(losses), np.inf, losses)
    return case.tags | {
        "spectral_radius": case.radius,
        "learning_rate": case.rate,
        "norm_bound": case.bounds.norm,
        "value_bound": case.bounds.value,
        "failed": float(np.mean(losses > FAILED_ABOVE)),
        "loss_median": float(np.median(losses)),
        "loss_smallest": float(losses.min()),
        "loss_largest": float(losses.max()),
        "num_seeds": len(losses),
    }


def final_losses(config: Any, name: str, cases: Sequence[Case]) -> np.ndarray:
    """The loss of the last tenth of the sequences, [seeds, cases], trained with one truncation."""
    length = config.sequence_length
    truncation = methods.Truncation(name, config.mean_length, config.alpha, length)
    estimator = truncation.estimator(config.num_rows)
    num_steps = config.num_sequences * length
    edges = np.array([0, num_steps - max(1, config.num_sequences // 10) * length, num_steps])

    def train(radius: Any, rate: Any, bounds: Any, key: jax.Array, stream: artbp.Stream) -> Any:
        init_key, boundary_key = jax.random.split(key)
        params = system.init(init_key, config.hidden_size, radius)
        carry = system.core.initial_carry(params["cell"], config.num_rows)
        outcome = train_whole(
            estimator,
            lambda rate: methods.clipped_sgd(rate, bounds),
            rate,
            params,
            carry,
            stream,
            boundary_key,
            edges=edges,
        )
        return outcome.loss[-1]

    # One key at a time: all cases of a program then cut at the same steps.
    compiled = jax.jit(jax.vmap(train, in_axes=(0, 0, 0, None, None)))
    radii, rates = (np.array([getattr(c, field) for c in cases]) for field in ("radius", "rate"))
    bounds = methods.Clip(*np.array([case.bounds for case in cases]).T)
    losses = []
    for seed in range(config.seed, config.seed + config.num_seeds):
        stream = system.sequences(
            2 * seed,
            config.num_rows,
            num_sequences=config.num_sequences,
            length=length,
            horizon=config.horizon,
        )
        losses.append(compiled(radii, rates, bounds, jax.random.key(seed), stream))
    return np.array(losses)
