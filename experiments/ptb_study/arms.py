"""What the study compares: settings of a run, the rates that each may choose from, and its pair."""

from __future__ import annotations

import dataclasses

# Doubled from one to the next; every arm of an optimiser chooses from the same rates.
ADAM_RATES = (4e-3, 8e-3, 1.6e-2, 3.2e-2, 6.4e-2)
SGD_RATES = (0.125, 0.25, 0.5, 1.0, 2.0)


@dataclasses.dataclass(frozen=True)
class Arm:
    """One of the settings that are compared.

    overrides: `--set` values that make it from the configuration of the study.
    rates: learning rates that its tuning chooses from.
    reference: name of the arm whose bits are subtracted from its own, seed by seed; None for those
        that are references themselves.
    """

    overrides: tuple[str, ...]
    rates: tuple[float, ...]
    reference: str | None


def _adam(*overrides: str, reference: str | None = "tbptt50") -> Arm:
    return Arm(overrides, ADAM_RATES, reference)


def _sgd(*overrides: str, reference: str | None = "sgd-tbptt50") -> Arm:
    # Adam's step divides by a second moment that segments of random length inflate. That of SGD,
    # momentum included, is linear in the gradient: its mean is unbiased where the gradient is.
    sgd = ("optimizer.name=sgd", "optimizer.options.momentum=0.9")
    return Arm((*overrides, *sgd), SGD_RATES, reference)


ARMS = {
    "tbptt50": _adam("method=tbptt", "mean_length=50", reference=None),
    # As long as the segment of ARTBP that a random step is in: E[L²]/L0 = 197 at alpha = 4.
    "tbptt200": _adam("method=tbptt", "mean_length=200"),
    "artbp-alpha4": _adam("method=artbp", "mean_length=50", "alpha=4.0"),
    "artbp-alpha6": _adam("method=artbp", "mean_length=50", "alpha=6.0"),
    # The same cuts as artbp-alpha4 on the same seed.
    "uncompensated": _adam("method=uncompensated", "mean_length=50", "alpha=4.0"),
    "sgd-tbptt50": _sgd("method=tbptt", "mean_length=50", reference=None),
    "sgd-artbp-alpha4": _sgd("method=artbp", "mean_length=50", "alpha=4.0"),
}
