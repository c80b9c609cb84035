"""Known lag profiles: what a design gains on its own, and on others."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from artbp.contrib import optimal_law
from artbp.truncation import Tabulated, TruncationLaw, streaming_variance
from benchmarks.law_design.laws import (
    DELAY,
    LAWS,
    LONGER,
    MEAN_LENGTH,
    design,
    longest,
    second_moment,
    summed_second_moment,
    two_hazards,
)

# Designs know this many lags, and nothing of what comes later.
NUM_LAGS = 8 * MEAN_LENGTH
MEMORIES = (0.25, 0.5, 1.0, 2.0, 4.0)  # τ ÷ L0, of the judges of other designs
STRETCHES = (0.8, 0.95, 1.0, 1.05, 1.25)


def profile(sizes: np.ndarray, coherent: bool) -> np.ndarray:
    """E⟨G_m, G_m'⟩ where all G_m have one direction, or each its own; a zero lag ends it."""
    sizes = np.append(sizes, 0.0)
    return np.outer(sizes, sizes) if coherent else np.diag(sizes**2)


def exponential(memory: float, coherent: bool, num_lags: int = NUM_LAGS) -> np.ndarray:
    """‖G_m‖ = e^(−m/τ)."""
    return profile(np.exp(-np.arange(num_lags) / memory), coherent)


def profiles() -> dict[str, np.ndarray]:
    """The known ones: memories below and above 2·L0, a power law, and one that changes sign."""
    found = {}
    lags = np.arange(NUM_LAGS)
    shapes = {
        "exponential, τ = L0/2": np.exp(-lags / (MEAN_LENGTH / 2)),
        "exponential, τ = 2·L0": np.exp(-lags / (2 * MEAN_LENGTH)),
        "1/(1 + m)": 1 / (1 + lags),
    }
    for name, sizes in shapes.items():
        for coherent in (True, False):
            found[f"{name}, {_kind(coherent)}"] = profile(sizes, coherent)
    found["exponential, τ = 2·L0, sign changes every L0"] = waves(1.0)
    return found


def waves(stretch: float) -> np.ndarray:
    """τ = 2·L0, all in one direction, whose sign changes every stretch · L0 lags."""
    lags = np.arange(NUM_LAGS)
    sizes = np.exp(-lags / (2 * MEAN_LENGTH)) * np.cos(np.pi * lags / (stretch * MEAN_LENGTH))
    return profile(sizes, True)


def known_profiles() -> Iterator[dict[str, Any]]:
    """The optimum against each law, on the profile that it was designed for."""
    for name, gram in profiles().items():
        for law_name, law in LAWS.items():
            best = design(gram, law)
            hazard = best.hazard(np.array([1, 2, MEAN_LENGTH]))
            yield {
                "profile": name,
                "law": law_name,
                "second_moment": second_moment(law),
                "variance_ratio": streaming_variance(best, gram) / streaming_variance(law, gram),
                "two_hazards_ratio": streaming_variance(two_hazards(law), gram)
                / streaming_variance(law, gram),
                "longest_law": longest(law),
                "longest_optimal": longest(best),
                "first_hazards": ", ".join(f"{c:.3f}" for c in hazard),
                "last_hazard": best.hazards[-1],
            }


def same_delay() -> Iterator[dict[str, Any]]:
    """V ÷ V of α = 4 where E[L²]/L0 = 61 alone is held, and the mean length is twice as long.

    A design with many segments of one step and few long ones has a short mean, and otherwise much
    in common with a law of a longer mean and no design.
    """
    law = LAWS["α = 4"]
    for name, gram in profiles().items():
        laws = {
            "design": design(gram, law),
            "longer": LONGER,
            "longer_design": optimal_law(
                gram,
                mean_length=LONGER.mean_length,
                second_moment=DELAY * LONGER.mean_length,
                num_ages=NUM_LAGS,
            ),
        }
        base = streaming_variance(law, gram)
        yield {"profile": name} | {
            key: streaming_variance(one, gram) / base for key, one in laws.items()
        }


def more_memory() -> Iterator[dict[str, Any]]:
    """The optimum under other bounds on E[L²], the last of which binds nothing."""
    law = LAWS["α = 4"]
    for coherent in (True, False):
        gram = exponential(MEAN_LENGTH / 2, coherent)
        for bound in (496.0, 976.0, 2_896.0, 10_000.0):
            best = optimal_law(gram, mean_length=MEAN_LENGTH, second_moment=bound)
            yield {
                "kind": _kind(coherent),
                "bound": bound,
                "second_moment": summed_second_moment(best),
                "variance_ratio": streaming_variance(best, gram) / streaming_variance(law, gram),
            }


def _kind(coherent: bool) -> str:
    return "one direction" if coherent else "orthogonal"


def other_periods() -> dict[str, Any]:
    """The design for `waves(1)`, judged where the sign changes sooner and later."""
    law = LAWS["α = 4"]
    best = design(waves(1.0), law)
    return {
        f"{stretch:g}": streaming_variance(best, gram) / streaming_variance(law, gram)
        for stretch, gram in ((stretch, waves(stretch)) for stretch in STRETCHES)
    }


def other_profiles() -> Iterator[dict[str, Any]]:
    """Designed on one profile, judged on another: variance ÷ that of α = 4 of equal moments."""
    law = LAWS["α = 4"]
    rng = np.random.default_rng(0)
    for coherent in (True, False):
        grams = {m: exponential(m * MEAN_LENGTH, coherent) for m in MEMORIES}
        noisy = np.exp(-np.arange(NUM_LAGS) / MEAN_LENGTH + 0.5 * rng.standard_normal(NUM_LAGS))
        designed_on = {f"τ = {m:g}·L0": grams[m] for m in MEMORIES[1:4]}
        designed_on["τ = L0, each lag times e^N(0, ½²)"] = profile(noisy, coherent)
        # V is linear in the Gram: this minimises the mean of V ÷ V(α = 4) over the memories. Here
        # the design sees five times the longest of them.
        lags = int(5 * MEMORIES[-1] * MEAN_LENGTH)
        grams = {m: exponential(m * MEAN_LENGTH, coherent, num_lags=lags) for m in MEMORIES}
        scaled = [gram / streaming_variance(law, gram) for gram in grams.values()]
        designed_on["the mean over all of them"] = np.sum(scaled, axis=0)
        for name, gram in designed_on.items():
            best = design(gram, law)
            row: dict[str, Any] = {
                "kind": _kind(coherent),
                "designed_on": name,
            }
            row["last_hazard"] = best.hazards[-1]
            for m in MEMORIES:
                row[f"{m:g}"] = _ratio(best, law, m * MEAN_LENGTH, coherent)
            yield row


def _ratio(best: Tabulated, law: TruncationLaw, memory: float, coherent: bool) -> float | str:
    """V ÷ V(law) where G decays as e^(−m/τ) for ever; the design need not have seen that."""
    # Weights grow like (1 − c)^(−m/2), with the last hazard c.
    if best.hazards[-1] >= -np.expm1(-2 / memory):
        return "infinite"
    gram = exponential(memory, coherent, num_lags=int(10 * memory))
    return streaming_variance(best, gram) / streaming_variance(law, gram)
