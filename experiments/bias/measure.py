"""One system: its report over many windows, intervals on one, enumeration, online estimators."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

import artbp
from artbp import diagnostics
from artbp.truncation import TruncationLaw
from experiments.bias.look_backs import NUM_LAWS, look_back_rows, shown
from experiments.bias.systems import System
from experiments.common.arms import Arm, parse
from experiments.common.report import Row, interval

_ENUMERATED_STEPS = 9
_OFFSETS = 16  # of TBPTT's cuts, evenly spread, over which its bias on one window is averaged


def truncation_lengths(config: Any) -> list[int]:
    """Powers of two below half a window."""
    return [2**i for i in range(20) if 2 ** (i + 1) < config.window_length]


def each_confidence(config: Any) -> float:
    """The level of one interval, so that all of them on bias hold together."""
    return 1 - (1 - config.family_level) / number_of_intervals(config)


def number_of_intervals(config: Any) -> int:
    """Counts the intervals on bias.

    There are two for each length of TBPTT (its size, its part along g), and one for each tested arm
    of ARTBP, for each law of unbiased TBPTT and for each random online arm.
    """
    random = sum(parse(text).claims.random for text in config.online_arms)
    of_tbptt = 2 * len(truncation_lengths(config))
    return len(config.systems) * (of_tbptt + len(config.tested_arms) + NUM_LAWS + random)


def measure(
    config: Any, name: str, system: System, rng_key: jax.Array
) -> tuple[list[Row], diagnostics.GradientReport]:
    """The rows of one system, and its report for the figure."""
    report_key, draw_key, online_key = jax.random.split(rng_key, 3)
    lengths = truncation_lengths(config)
    laws: list[Any] = [parse(text).law for text in config.noisy_arms]
    given = system.cell, system.loss_fn, system.params, system.carry, system.stream
    report = diagnostics.gradient_report(
        *given,
        window_length=config.window_length,
        truncation_lengths=lengths,
        laws=laws,
        rng_key=report_key,
        num_variance_windows=config.num_variance_windows,
        num_samples=config.num_samples,
        confidence=each_confidence(config),
    )
    window = first_window(system, config.window_length)
    gradient = flat_gradient(system, window)
    bptt: Row = {"estimator": "BPTT", "kind": "bptt", "length": config.window_length}
    bptt |= {"mean_memory": config.window_length, "relative_bias": 0.0, "cosine": 1.0}
    bptt |= {"relative_noise": report.data_noise, "noise_interval": report.data_noise_interval}
    bptt["variance_to_data"] = 1.0
    tbptt = []
    on_window = biases_on_window(system, window, gradient, lengths)
    for bias, given in zip(report.biases, on_window, strict=True):
        length, row = bias.truncation_length, bias._asdict()
        row |= {"estimator": f"TBPTT {length}", "kind": "tbptt", "on_window": given}
        row |= {"length": length, "mean_memory": length, "bias_interval": row.pop("interval")}
        tbptt.append(row)
    tested_length = int(parse(config.tested_arms[0]).length)
    nearest = min(tbptt, key=lambda row: abs(row["length"] - tested_length))
    rows = [bptt, *tbptt, *artbp_rows(config, system, window, report, nearest, draw_key)]
    rows += look_back_rows(
        system,
        window,
        gradient,
        report,
        nearest,
        _target(config, nearest),
        config.max_draws,
        each_confidence(config),
        jax.random.fold_in(draw_key, 1),
    )
    if system.is_small:
        online = map(parse, config.online_arms)
        rows += [online_row(config, arm, system, window, gradient, online_key) for arm in online]
    return [{"system": name} | row for row in rows], shown(report)


def _target(config: Any, nearest: Row) -> float:
    """The half-width of an interval on bias at which no more is drawn."""
    return 0.9 * config.half_width_share * abs(nearest["on_window"])


def first_window(system: System, length: int) -> artbp.Stream:
    """The first steps of the stream."""
    stream = system.stream
    xs, targets = jax.tree.map(lambda leaf: leaf[:length], (stream.xs, stream.targets))
    return artbp.Stream(xs, targets, num_steps=length)


def flat_gradient(system: System, window: artbp.Stream) -> np.ndarray:
    """BPTT through the window, as one vector."""
    return _flat_gradients(system, window)(np.ones((1, window.num_steps)))[0]


def _flat_gradients(system: System, window: artbp.Stream) -> Callable[[np.ndarray], np.ndarray]:
    """From gates [D, T] to gradients [D, number of params]."""
    given = system.cell, system.loss_fn, system.params, system.carry, window

    @jax.jit
    def gradients(gates: jax.Array) -> jax.Array:
        found = diagnostics.gradients_of_gates(*given, gates)
        return jax.vmap(lambda tree: ravel_pytree(tree)[0])(found)

    return lambda gates: np.asarray(gradients(jnp.asarray(gates)), np.float64)


def biases_on_window(
    system: System, window: artbp.Stream, gradient: np.ndarray, lengths: Sequence[int]
) -> list[float]:
    """⟨ĝ(K) − g, g⟩ / ‖g‖² of TBPTT for each K, the mean over offsets of the cuts."""
    done = np.arange(1, window.num_steps + 1)
    gradients = _flat_gradients(system, window)
    biases = []
    for length in lengths:
        offsets = np.floor(np.arange(_OFFSETS) * length / _OFFSETS)
        gates = np.where((done[None] + offsets[:, None]) % length == 0, 0.0, 1.0)
        errors = gradients(gates) - gradient
        biases.append(float(np.mean(errors @ gradient) / (gradient @ gradient)))
    return biases


def artbp_rows(
    config: Any,
    system: System,
    window: artbp.Stream,
    report: diagnostics.GradientReport,
    nearest: Row,
    rng_key: jax.Array,
) -> list[Row]:
    """Noise for every law; for `tested_arms` the bias on one window with its interval.

    nearest: the row of TBPTT with the length nearest to theirs.
    """
    tested = [parse(text) for text in config.tested_arms]
    laws: list[Any] = [arm.law for arm in tested]
    given = system.params, system.carry, window, rng_key
    biases = artbp.contrib.sampled_bias(
        system.cell,
        system.loss_fn,
        laws,
        *given,
        num_draws=config.max_draws,
        half_width=_target(config, nearest) or None,
        confidence=each_confidence(config),
    )
    found = dict(zip(laws, biases, strict=True))
    of_few_steps = flat_gradient(system, first_window(system, _ENUMERATED_STEPS))
    rows = []
    for arm, noise in zip(map(parse, config.noisy_arms), report.noises, strict=True):
        row: Row = {"arm": arm.text, "estimator": arm.label, "kind": "artbp"} | noise._asdict()
        row |= {"length": arm.length, "noise_interval": row.pop("interval")}
        del row["law"]
        if noise.law in found:
            bias = found[noise.law]
            row |= {"on_window": bias.bias, "on_window_half_width": bias.half_width}
            row |= {"num_draws": bias.num_draws, "tbptt_on_window": nearest["on_window"]}
        if system.is_small:
            row["enumeration_error"] = enumeration_error(system, noise.law, of_few_steps)
        rows.append(row)
    return rows


def enumeration_error(system: System, law: TruncationLaw, gradient: np.ndarray) -> float:
    """‖E ĝ − g‖ / ‖g‖ over all boundary patterns of the first few steps, float64; `gradient`: g."""
    short = first_window(system, _ENUMERATED_STEPS)

    def make_estimator(law: TruncationLaw) -> artbp.GradientEstimator:
        return artbp.artbp(system.cell, system.loss_fn, law, block_size=4)

    exact = diagnostics.exact_expectation(make_estimator, law, system.params, system.carry, short)
    mean = np.asarray(ravel_pytree(exact.mean)[0])
    return float(np.linalg.norm(mean - gradient) / np.linalg.norm(gradient))


def online_row(
    config: Any,
    arm: Arm,
    system: System,
    window: artbp.Stream,
    gradient: np.ndarray,
    rng_key: jax.Array,
) -> Row:
    """An online estimator over the window, with frozen params: bias along g, and noise."""
    estimator = arm.build(system.cell, system.loss_fn)

    @jax.jit
    @jax.vmap
    def one_pass(key: jax.Array) -> jax.Array:
        state = estimator.init(system.params, system.carry, rng_key=key)
        total, _ = artbp.run_pass(estimator, system.params, state, window)
        return ravel_pytree(total)[0]

    num_keys = config.num_keys if arm.claims.random else 1
    found = np.asarray(one_pass(jax.random.split(rng_key, num_keys)))
    squared_norm = gradient @ gradient
    along = (found - gradient) @ gradient / squared_norm
    bias, half_width = interval(along, each_confidence(config))
    variance = found.var(axis=0, ddof=min(num_keys - 1, 1)).sum()
    row: Row = {"arm": arm.text, "estimator": arm.label, "kind": "online", "on_window": bias}
    row["on_window_half_width"] = half_width if num_keys > 1 else 0.0
    row["relative_noise"] = float(np.sqrt(variance / squared_norm))
    return row | {"num_draws": num_keys}
