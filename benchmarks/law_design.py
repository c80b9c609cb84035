"""What a truncation law designed for a lag profile gains, at equal mean length and equal E[L²].

    OPENBLAS_NUM_THREADS=1 python -m benchmarks.law_design [--results FILE]

Nothing is timed: the numbers are variances in closed form, of `artbp.truncation.streaming_variance`
where the profile is a formula, and of `artbp.diagnostics.truncation_variance` on data that the
design has not seen where it is measured on a GRU. Three tables: profiles that are known; laws
designed on one profile and judged on another; the GRU.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import artbp
from artbp.diagnostics import lag_profile, truncation_variance
from artbp.truncation import (
    Tabulated,
    TruncationLaw,
    geometric,
    optimal,
    polynomial,
    streaming_variance,
    tabulated,
)
from benchmarks import common

MEAN_LENGTH, ALPHA = 16, 4.0
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # that α = 3 has an infinite E[L²]
    LAWS: dict[str, TruncationLaw] = {
        f"α = {alpha}": polynomial(MEAN_LENGTH, float(alpha)) for alpha in range(3, 9)
    }
LAWS["geometric"] = geometric(MEAN_LENGTH)
# Designs know this many lags, and nothing of what comes later.
NUM_LAGS = 8 * MEAN_LENGTH
MEMORIES = (0.25, 0.5, 1.0, 2.0, 4.0)  # τ ÷ L0, of the judges of other designs
# E[L²]/L0 of α = 4, and the geometric law that has it too.
DELAY = 61
LONGER = geometric((DELAY + 1) / 2)
STRETCHES = (0.8, 0.95, 1.0, 1.05, 1.25)
HIDDEN_SIZE, ROWS, WINDOW = 16, 8, 256


def second_moment(law: TruncationLaw) -> float:
    """E[L²]; for α = 3, where it is infinite, that of α = 4: the design gets by with less."""
    alpha = getattr(law, "alpha", np.inf)
    alpha = ALPHA if alpha <= 3 else alpha
    ratio = 1.0 if np.isinf(alpha) else (alpha - 2) / (alpha - 3)
    return MEAN_LENGTH + 2 * MEAN_LENGTH * (MEAN_LENGTH - 1) * ratio


def design(gram: np.ndarray, law: TruncationLaw) -> Tabulated:
    """The optimal law of the mean length and the second moment of `law`."""
    return optimal(gram, mean_length=MEAN_LENGTH, second_moment=second_moment(law))


def summed_second_moment(law: TruncationLaw) -> float:
    """E[L²] of a law whose hazard ends at a constant above 0."""
    ages = np.arange(1_000_000)
    return float(np.sum((2 * ages + 1) * law.survival(ages)))


def two_hazards(law: TruncationLaw) -> TruncationLaw:
    """c(1) of its own, and another for all later ages, of the moments of `law`: no design at all.

    L = 1 + B·Geom(c), P(B = 1) = (L0 − 1)·c, and E[(L − 1)²] = (L0 − 1)·(2 − c)/c.
    """
    of_the_rest = second_moment(law) - 2 * MEAN_LENGTH + 1
    later = 2 / (of_the_rest / (MEAN_LENGTH - 1) + 1)
    return tabulated([1 - (MEAN_LENGTH - 1) * later, later])


def longest(law: TruncationLaw, number: int = 10_000) -> float:
    """The mean of the longest of so many segments, in time steps."""
    return float(np.sum(1 - (1 - law.survival(np.arange(200_000))) ** number))


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
            "longer_design": optimal(
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
            best = optimal(gram, mean_length=MEAN_LENGTH, second_moment=bound)
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
                "kind": "one direction" if coherent else "orthogonal",
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


def cell(params: Any, carry: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """A GRU with a readout."""
    return artbp.cells.gru(params["gru"], carry, x)


def loss_fn(params: Any, y: jax.Array, target: jax.Array) -> jax.Array:
    """Squared error of each row."""
    return jnp.mean((y @ params["readout"] - target) ** 2, axis=-1)


def make_data(seed: int, num_steps: int) -> artbp.Stream:
    """White noise; the target is its moving average over about 32 steps."""
    noise = np.random.default_rng(seed).standard_normal((num_steps, ROWS, 1)).astype(np.float32)
    targets, average = np.empty_like(noise), np.zeros_like(noise[0])
    for t in range(num_steps):
        average = average + (noise[t] - average) / 32
        targets[t] = 4 * average
    return artbp.Stream(noise, targets)


def trained(params: Any, num_updates: int) -> Any:
    """The params after so many updates with the gradient through windows of 64 steps."""
    stream = jax.device_put(make_data(1, 16_384))
    estimator = artbp.tbptt(cell, loss_fn, truncation_length=64, normalizer=64 * ROWS)
    optimizer = optax.adam(3e-3)

    @jax.jit
    def train(params: Any) -> Any:
        def update(_: int, loop: Any) -> Any:
            params, opt_state, state = loop
            grads, state, _info = estimator.estimate(params, state, stream)
            updates, opt_state = optimizer.update(grads, opt_state)
            return optax.apply_updates(params, updates), opt_state, state

        state = estimator.init(params, zeros(), rng_key=jax.random.key(0))
        return jax.lax.fori_loop(0, num_updates, update, (params, optimizer.init(params), state))

    return train(params)[0]


def zeros() -> jax.Array:
    """The carry at the beginning."""
    return jnp.zeros((ROWS, HIDDEN_SIZE))


def window_of(params: Any, seed: int) -> tuple[jax.Array, artbp.Stream]:
    """(the carry after 256 steps of data of its own, the 256 steps that follow)."""
    stream = make_data(seed, 2 * WINDOW)
    before, after = (
        artbp.Stream(stream.xs[steps], stream.targets[steps])
        for steps in (slice(0, WINDOW), slice(WINDOW, None))
    )
    return artbp.unroll(cell, params, zeros(), before.xs)[0], after


def measured_gram(params: Any, seed: int, num_samples: int) -> np.ndarray:
    """From one window; a zero lag ends it."""
    carry, stream = window_of(params, seed)
    key = jax.random.key(seed)
    found = lag_profile(
        cell, loss_fn, params, carry, stream, num_lags=96, rng_key=key, num_samples=num_samples
    )
    print(f"seed {seed}: time constant {found.time_constant:.3g}, {found.dynamics}")
    return np.pad(found.gram, (0, 1))


def network(num_windows: int, num_samples: int) -> list[dict[str, Any]]:
    """Designed on one window, judged by the exact variance on other windows and a trained GRU."""
    first, second = jax.random.split(jax.random.key(0))
    drawn = {
        "gru": artbp.cells.gru.init(first, 1, HIDDEN_SIZE),
        "readout": jax.random.normal(second, (HIDDEN_SIZE, 1)) / 4,
    }
    params = trained(drawn, 2_000)
    law = LAWS["α = 4"]
    laws: dict[str, TruncationLaw] = {
        "α = 4": law,
        "α = 6": LAWS["α = 6"],
        "geometric": LAWS["geometric"],
        "geometric, mean 31": LONGER,
        "two hazards": two_hazards(law),
        "optimal, one window of other data": design(measured_gram(params, 100, 64), law),
        "optimal, 8 steps of that window": design(measured_gram(params, 100, 8), law),
        "optimal, params before training": design(measured_gram(drawn, 100, 64), law),
    }
    traces = np.array(
        [
            [
                found.trace
                for found in truncation_variance(
                    cell,
                    loss_fn,
                    list(laws.values()),
                    params,
                    *window_of(params, 200 + i),
                    rng_key=jax.random.key(i),
                    num_samples=num_samples,
                )
            ]
            for i in range(num_windows)
        ]
    )
    ratios = traces.sum(axis=0) / traces[:, 0].sum()
    left_out = traces.sum(axis=0) - traces
    spread = left_out / left_out[:, :1]
    errors = np.sqrt((num_windows - 1) * np.var(spread, axis=0))  # jackknife
    return [
        {
            "law": name,
            "delay": summed_second_moment(one) / float(np.sum(one.survival(np.arange(10**6)))),
            "variance_ratio": float(ratio),
            "standard_error": float(error),
        }
        for (name, one), ratio, error in zip(laws.items(), ratios, errors, strict=True)
    ]


def _table(title: str, rows: list[dict[str, Any]], columns: Mapping[str, str]) -> None:
    print(f"\n{title}\n")
    common.print_table(rows, columns)


def main() -> None:
    """Prints the three tables."""
    arguments = common.make_parser(__doc__).parse_args()
    known = list(known_profiles())
    pivot: dict[str, dict[str, Any]] = {}
    for row in known:
        pivot.setdefault(row["profile"], {"profile": row["profile"]})[row["law"]] = row[
            "variance_ratio"
        ]
    _table("V of the optimum ÷ V of", list(pivot.values()), {"profile": ""} | {n: n for n in LAWS})
    details = {
        "profile": "",
        "law": "law",
        "second_moment": "E[L²]",
        "variance_ratio": "V of the optimum ÷ V",
        "two_hazards_ratio": "V of two hazards ÷ V",
        "longest_law": "longest of 10⁴ segments",
        "longest_optimal": "of the optimum",
        "first_hazards": "c(1), c(2), c(L0)",
        "last_hazard": "last hazard",
    }
    _table("The optima", known, details)
    delay = list(same_delay())
    columns = {
        "profile": "",
        "design": "the optimum",
        "longer": "geometric, mean 31",
        "longer_design": "the optimum of mean 31",
    }
    _table("V ÷ V of α = 4, all with E[L²]/L0 = 61", delay, columns)
    memory = list(more_memory())
    columns = {"kind": "τ = L0/2", "bound": "E[L²] ≤", "second_moment": "E[L²] of the optimum"}
    _table("More memory, the same mean", memory, columns | {"variance_ratio": "V ÷ V of α = 4"})
    others = list(other_profiles())
    columns = {"kind": "", "designed_on": "designed on", "last_hazard": "last hazard"}
    columns |= {f"{m:g}": f"τ = {m:g}·L0" for m in MEMORIES}
    _table("V ÷ V of α = 4, judged at", others, columns)
    periods = other_periods()
    columns = {stretch: f"{stretch} times" for stretch in periods}
    _table("Designed for sign changes every L0; V ÷ V of α = 4 at a period of", [periods], columns)
    measured = network(num_windows=16, num_samples=24)
    columns = {
        "law": "law",
        "delay": "E[L²]/L0",
        "variance_ratio": "variance ÷ that of α = 4",
        "standard_error": "standard error",
    }
    _table("A trained GRU, on other data", measured, columns)
    rows = [{"table": "known"} | row for row in known]
    rows += [{"table": "delay"} | row for row in delay]
    rows += [{"table": "memory"} | row for row in memory]
    rows += [{"table": "other"} | row for row in others]
    rows.append({"table": "periods"} | periods)
    rows += [{"table": "network"} | row for row in measured]
    common.write_results(rows, arguments.results)


if __name__ == "__main__":
    main()
