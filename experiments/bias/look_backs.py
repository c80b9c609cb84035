"""Unbiased TBPTT on one system: its noise from the report, its bias over all look-backs."""

import statistics
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.flatten_util import ravel_pytree

import artbp
from artbp import diagnostics, truncation
from artbp.diagnostics.report import look_back_name
from experiments.bias.systems import System
from experiments.common.report import Row

NUM_LAWS = 4  # of look-backs in a report, for each window length
_SHORTEST = 8  # window length that is shown


def shown(report: diagnostics.GradientReport) -> diagnostics.GradientReport:
    """The report without the look-backs of very short windows."""
    rows = [row for row in report.look_backs if row.truncation_length >= _SHORTEST]
    return report._replace(look_backs=rows)


def look_back_rows(
    system: System,
    window: artbp.Stream,
    gradient: np.ndarray,
    report: diagnostics.GradientReport,
    tbptt: Row,
    half_width: float,
    max_draws: int,
    confidence: float,
    rng_key: jax.Array,
) -> list[Row]:
    """A row for each window length and law; at the length of `tbptt` with the bias on one window.

    half_width: draws are made until the interval of the bias is as narrow.
    """
    rows = []
    for i, noise in enumerate(shown(report).look_backs):
        length, law = noise.truncation_length, noise.law
        row: Row = {"kind": "unbiased tbptt"} | noise._asdict()
        row["estimator"] = f"unbiased TBPTT {length}, {look_back_name(noise)}"
        row |= {"length": length, "mean_memory": row.pop("memory"), "law": repr(law)[:80]}
        row |= {"relative_work": noise.relative_work, "noise_interval": row.pop("interval")}
        if length == tbptt["length"]:
            estimates = all_estimates(system, window, law, length)
            row["enumeration_error"] = enumeration_error(estimates, law, gradient)
            along = estimates @ gradient / (gradient @ gradient)
            key = jax.random.fold_in(rng_key, i)
            given = law, half_width, max_draws, confidence, key
            bias, width, num_draws = drawn_bias(along, *given)
            row |= {"on_window": bias, "on_window_half_width": width, "num_draws": num_draws}
            row["tbptt_on_window"] = tbptt["on_window"]
        rows.append(row)
    return rows


def all_estimates(
    system: System, window: artbp.Stream, law: truncation.TruncationLaw, length: int
) -> np.ndarray:
    """The estimate of each of N windows for each look-back of 1, …, N windows, `[N, N, P]`."""
    num_windows = -(-window.num_steps // length)

    @jax.jit
    def with_look_back(look_back: jax.Array) -> jax.Array:
        replayed = truncation.replay(look_back[None], law)
        estimator = artbp.unbiased_tbptt(
            system.cell, system.loss_fn, replayed, truncation_length=length
        )
        state = estimator.init(system.params, system.carry, rng_key=jax.random.key(0))

        def one(state: Any, _: Any) -> tuple[Any, jax.Array]:
            grads, state, _ = estimator.estimate(system.params, state, window)
            return state, ravel_pytree(grads)[0]

        return lax.scan(one, state, length=num_windows)[1]

    look_backs = np.arange(1, num_windows + 1, dtype=np.int32)
    return np.array([with_look_back(jnp.asarray(a)) for a in look_backs], np.float64)


def probabilities(law: truncation.TruncationLaw, num_windows: int) -> np.ndarray:
    """P(window n looks back a windows), `[a, n]`; it has n older ones, and looks no farther."""
    survival = law.survival(np.arange(num_windows))
    exact = np.append(-np.diff(survival), 0.0)[:, None]
    look_back, n = np.arange(1, num_windows + 1)[:, None], np.arange(num_windows)
    return np.where(look_back == n + 1, survival[:, None], np.where(look_back <= n, exact, 0.0))


def enumeration_error(
    estimates: np.ndarray, law: truncation.TruncationLaw, gradient: np.ndarray
) -> float:
    """‖E ĝ − g‖ / ‖g‖ of a pass over the window, over all look-backs."""
    mean = np.einsum("an,anp->p", probabilities(law, len(estimates)), estimates)
    return float(np.linalg.norm(mean - gradient) / np.linalg.norm(gradient))


def drawn_bias(
    along: np.ndarray,
    law: truncation.TruncationLaw,
    half_width: float,
    max_draws: int,
    confidence: float,
    rng_key: jax.Array,
) -> tuple[float, float, int]:
    """The bias over drawn look-backs, the half-width of its interval, and the number of draws.

    along: ⟨ĝ_n, g⟩ / ‖g‖² for each look-back and window, `[a, n]`. The interval is made from the
    exact variance.
    """
    num_windows = len(along)
    chance = probabilities(law, num_windows)
    mean = np.sum(chance * along, axis=0)
    deviation = float(np.sqrt(np.sum(chance * (along - mean) ** 2)))
    quantile = statistics.NormalDist().inv_cdf((1 + confidence) / 2)
    wanted = np.ceil((quantile * deviation / half_width) ** 2) if half_width else np.inf
    num_draws = int(min(max_draws, max(wanted, 64)))

    def draw(i: jax.Array) -> jax.Array:
        return law.length_of(rng_key, i, num_windows)

    numbers = jnp.arange(num_draws * num_windows, dtype=jnp.int32)
    drawn = np.asarray(jax.jit(jax.vmap(draw))(numbers)).reshape(num_draws, num_windows)
    n = np.arange(num_windows)
    products = along[np.minimum(drawn - 1, n), n].sum(axis=1)
    width = quantile * deviation / np.sqrt(num_draws)
    return float(np.mean(products) - 1), float(width), num_draws
