"""The ways to get the gradient of the hyperparameters, and what each costs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import artbp
from experiments.hyperparameters.problems import Problem


@dataclass(frozen=True)
class Method:
    """An estimator of the library.

    Attributes:
        kind: "bptt", "tbptt", "artbp" or "pes".
        length: steps between updates, on average; the whole inner training for "bptt".
        alpha: of ARTBP's polynomial law, else 0.
        num_pairs: of PES, else 0.
    """

    kind: str
    length: int
    alpha: float = 0.0
    num_pairs: int = 0

    @property
    def label(self) -> str:
        """For readers."""
        if self.kind == "bptt":
            return "full BPTT"
        if self.kind == "artbp":
            return f"ARTBP {self.length}, α = {self.alpha:g}"
        return f"{self.kind.upper()} {self.length}"

    @property
    def evaluations(self) -> int:
        """Of the inner step, per inner step: as in `experiments.compare`, a derivative counts as
        two. PES runs every particle forward, and the unperturbed system besides."""
        return 2 * self.num_pairs + 1 if self.kind == "pes" else 3

    def law(self) -> artbp.truncation.TruncationLaw:
        """Of the segments' lengths; not for PES, which has no backward flow."""
        if self.kind == "bptt":
            return artbp.truncation.never()
        if self.kind == "tbptt":
            return artbp.truncation.fixed(self.length)
        return artbp.truncation.polynomial(self.length, self.alpha)

    def estimator(self, config: Any, problem: Problem) -> artbp.GradientEstimator:
        """Its gradients of one stream sum to that of the mean meta loss per inner step."""
        cell, loss_fn = problem.cell, problem.loss_fn
        normalizer = float(problem.num_steps)
        # A block no longer than the longest segment; with more, its buffers would be zeroed for
        # nothing at each new inner training.
        block: Any = {"normalizer": normalizer, "block_size": min(256, problem.num_steps)}
        if self.kind == "bptt":
            return artbp.bptt(cell, loss_fn, **block)
        if self.kind == "tbptt":
            return artbp.tbptt(cell, loss_fn, truncation_length=self.length, **block)
        if self.kind == "artbp":
            return artbp.artbp(cell, loss_fn, self.law(), **block)
        return artbp.pes(
            cell,
            loss_fn,
            truncation_length=self.length,
            num_pairs=self.num_pairs,
            scale=config.pes_scale,
            normalizer=normalizer,
        )


def backward_methods(config: Any, problem: Problem) -> list[Method]:
    """Full BPTT, TBPTT at each length, ARTBP with each α: those with gates."""
    return [
        Method("bptt", problem.num_steps),
        *(Method("tbptt", length) for length in config.truncation_lengths),
        *(Method("artbp", config.mean_length, alpha=alpha) for alpha in config.alphas),
    ]


def methods(config: Any, problem: Problem) -> list[Method]:
    """All that train hyperparameters."""
    pes = Method("pes", config.mean_length, num_pairs=config.pes_pairs)
    return [*backward_methods(config, problem), pes]
