"""One system: its report over many windows, intervals on one, enumeration, online estimators."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import flatten_util

import artbp
from artbp import diagnostics, truncation
from artbp.diagnostics.interval import student_t_quantile
from experiments.bias.problems import Problem
from experiments.common.metrics import window_bar
from experiments.common.report import Row

_ENUMERATED_STEPS = 9
_OFFSETS = 16  # of TBPTT's cuts, evenly spread, over which its bias on one window is averaged


def tested_laws(config: Any) -> list[truncation.TruncationLaw]:
    """The laws whose bias gets an interval."""
    length = config.mean_length
    return [
        truncation.geometric(length),
        truncation.polynomial(length, 4),
        truncation.polynomial(length, 6),
    ]


def truncation_lengths(config: Any) -> list[int]:
    """Powers of two below half a window."""
    return [2**i for i in range(20) if 2 ** (i + 1) < config.window_length]


def each_confidence(config: Any) -> float:
    """The level of one interval, so that all of them on bias hold together."""
    return 1 - (1 - config.family_level) / number_of_intervals(config)


def number_of_intervals(config: Any) -> int:
    """On bias: of TBPTT its size and its part along the gradient, of the laws, and of UORO."""
    of_tbptt, of_uoro = 2 * len(truncation_lengths(config)), 1
    return len(config.problems) * (of_tbptt + len(tested_laws(config)) + of_uoro)


def measure(
    config: Any, name: str, problem: Problem, rng_key: jax.Array, *, progress_bar: bool | None
) -> tuple[list[Row], diagnostics.GradientReport]:
    """The rows of one problem, and its report for the figure.

    progress_bar: over the windows; None where there is a terminal.
    """
    report_key, draw_key, online_key = jax.random.split(rng_key, 3)
    confidence = each_confidence(config)
    laws = [
        law
        for length in config.mean_lengths
        for law in (
            truncation.geometric(length),
            truncation.polynomial(length, 4),
            truncation.polynomial(length, 6),
        )
    ]
    with window_bar(name, progress_bar) as on_window:
        report = diagnostics.gradient_report(
            problem.cell,
            problem.loss_fn,
            problem.params,
            problem.carry,
            problem.stream,
            window_length=config.window_length,
            truncation_lengths=truncation_lengths(config),
            laws=laws,
            rng_key=report_key,
            num_variance_windows=config.num_variance_windows,
            num_samples=config.num_samples,
            confidence=confidence,
            on_window=on_window,
        )
    window = first_window(problem, config.window_length)
    gradient = flat_gradient(problem, window)
    on_window = biases_on_window(problem, window, gradient, truncation_lengths(config))
    bptt: Row = {"problem": name, "estimator": "BPTT", "kind": "bptt"}
    bptt |= {"length": config.window_length, "mean_memory": config.window_length, "cosine": 1.0}
    bptt |= {"noise": report.data_noise, "noise_interval": list(report.data_noise_interval)}
    rows: list[Row] = [bptt | {"bias": 0.0, "variance_to_data": 1.0}]
    for bias, given in zip(report.biases, on_window, strict=True):
        rows.append(
            {
                "problem": name,
                "estimator": f"TBPTT {bias.truncation_length}",
                "kind": "tbptt",
                "length": bias.truncation_length,
                "mean_memory": bias.truncation_length,
                "bias": bias.relative_bias,
                "bias_interval": list(bias.interval),
                "projection": bias.projection,
                "projection_half_width": bias.projection_half_width,
                "cosine": bias.cosine,
                "windows_to_matter": bias.windows_to_matter,
                "windows_interval": list(bias.windows_interval),
                "on_window": given,
            }
        )
    rows += artbp_rows(config, name, problem, window, report, rows, draw_key)
    if problem.is_small:
        rows += online_rows(config, name, problem, window, gradient, online_key)
    return rows, report


def first_window(problem: Problem, length: int) -> artbp.Stream:
    """The first steps of the stream."""
    stream = problem.stream
    xs, targets = jax.tree.map(lambda leaf: leaf[:length], (stream.xs, stream.targets))
    return artbp.Stream(xs, targets, num_steps=length)


def flat_gradient(problem: Problem, window: artbp.Stream) -> np.ndarray:
    """BPTT through the window, as one vector."""
    return _flat_gradients(problem, window)(np.ones((1, window.num_steps)))[0]


def _flat_gradients(problem: Problem, window: artbp.Stream) -> Callable[[np.ndarray], np.ndarray]:
    """From gates [D, T] to gradients [D, number of params]."""

    @jax.jit
    def gradients(gates: jax.Array) -> jax.Array:
        found = diagnostics.gradients_of_gates(
            problem.cell, problem.loss_fn, problem.params, problem.carry, window, gates
        )
        return jax.vmap(lambda tree: flatten_util.ravel_pytree(tree)[0])(found)

    return lambda gates: np.asarray(gradients(jnp.asarray(gates)), np.float64)


def biases_on_window(
    problem: Problem, window: artbp.Stream, gradient: np.ndarray, lengths: Sequence[int]
) -> list[float]:
    """⟨ĝ(K) − g, g⟩ / ‖g‖² of TBPTT for each K, the mean over offsets of the cuts."""
    done = np.arange(1, window.num_steps + 1)
    gradients = _flat_gradients(problem, window)
    biases = []
    for length in lengths:
        offsets = np.floor(np.arange(_OFFSETS) * length / _OFFSETS)
        gates = np.where((done[None] + offsets[:, None]) % length == 0, 0.0, 1.0)
        errors = gradients(gates) - gradient
        biases.append(float(np.mean(errors @ gradient) / (gradient @ gradient)))
    return biases


def artbp_rows(
    config: Any,
    name: str,
    problem: Problem,
    window: artbp.Stream,
    report: diagnostics.GradientReport,
    measured: Sequence[Row],
    rng_key: jax.Array,
) -> list[Row]:
    """Noise for every law; for those of `mean_length` the bias on one window with its interval."""
    laws = tested_laws(config)
    tbptt = [row for row in measured if row["kind"] == "tbptt"]
    nearest = min(tbptt, key=lambda row: abs(row["length"] - config.mean_length))
    biases = artbp.contrib.sampled_bias(
        problem.cell,
        problem.loss_fn,
        laws,
        problem.params,
        problem.carry,
        window,
        rng_key,
        num_draws=config.max_draws,
        half_width=0.9 * config.half_width_share * abs(nearest["on_window"]) or None,
        confidence=each_confidence(config),
    )
    found = dict(zip(laws, biases, strict=True))
    rows: list[Row] = []
    of_few_steps = flat_gradient(problem, first_window(problem, _ENUMERATED_STEPS))
    for noise in report.noises:
        row: Row = {
            "problem": name,
            "estimator": f"ARTBP, {diagnostics.law_name(noise.law)}",
            "kind": "artbp",
            "length": noise.mean_length,
            "mean_memory": noise.mean_memory,
            "noise": noise.relative_noise,
            "noise_interval": list(noise.interval),
            "variance_to_data": noise.variance_to_data,
            "variance_to_data_interval": list(noise.variance_interval),
        }
        if noise.law in found:
            bias = found[noise.law]
            row |= {
                "on_window": bias.bias,
                "on_window_half_width": bias.half_width,
                "num_draws": bias.num_draws,
                "tbptt_on_window": nearest["on_window"],
            }
        if problem.is_small:
            row["enumeration_error"] = enumeration_error(problem, noise.law, of_few_steps)
        rows.append(row)
    return rows


def enumeration_error(
    problem: Problem, law: truncation.TruncationLaw, gradient: np.ndarray
) -> float:
    """‖E ĝ − g‖ / ‖g‖ over all boundary patterns of the first few steps, float64; `gradient`: g."""
    short = first_window(problem, _ENUMERATED_STEPS)

    def make_estimator(law: truncation.TruncationLaw) -> artbp.GradientEstimator:
        return artbp.artbp(problem.cell, problem.loss_fn, law, block_size=4)

    exact = diagnostics.exact_expectation(make_estimator, law, problem.params, problem.carry, short)
    mean = np.asarray(flatten_util.ravel_pytree(exact.mean)[0])
    return float(np.linalg.norm(mean - gradient) / np.linalg.norm(gradient))


def online_rows(
    config: Any,
    name: str,
    problem: Problem,
    window: artbp.Stream,
    gradient: np.ndarray,
    rng_key: jax.Array,
) -> list[Row]:
    """RTRL, SnAp-1 and UORO over the window, with frozen params: bias along g, and noise."""
    confidence = each_confidence(config)
    rows: list[Row] = []
    for estimator_name in ("rtrl", "snap1", "uoro"):
        row = artbp.REGISTRY[estimator_name]
        estimator = row.build(problem.cell, problem.loss_fn, config.mean_length)

        @jax.jit
        @jax.vmap
        def one_pass(key: jax.Array, estimator: Any = estimator) -> jax.Array:
            def segment(loop: Any) -> Any:
                total, state, _ = loop
                grads, state, info = estimator.estimate(problem.params, state, window)
                flat = flatten_util.ravel_pytree(grads)[0]
                return total + flat, state, info.end_of_stream

            state = estimator.init(problem.params, problem.carry, rng_key=key)
            start = (jnp.zeros(gradient.shape), state, jnp.asarray(False))
            return jax.lax.while_loop(lambda loop: ~loop[2], segment, start)[0]

        num_keys = config.num_keys if row.random else 1
        found = np.asarray(one_pass(jax.random.split(rng_key, num_keys)))
        along = (found - gradient) @ gradient / (gradient @ gradient)
        half_width = 0.0
        if num_keys > 1:
            quantile = student_t_quantile(confidence, num_keys - 1)
            half_width = float(quantile * along.std(ddof=1) / np.sqrt(num_keys))
        size2 = np.sum(np.square(found - found.mean(0)), axis=1).sum() / max(num_keys - 1, 1)
        rows.append(
            {
                "problem": name,
                "estimator": estimator_name,
                "kind": "online",
                "on_window": float(along.mean()),
                "on_window_half_width": half_width,
                "noise": float(np.sqrt(size2 / (gradient @ gradient))),
                "num_draws": num_keys,
            }
        )
    return rows
