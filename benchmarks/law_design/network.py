"""A trained GRU: designed on one window of data, judged by the exact variance on others."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import artbp
from artbp.diagnostics import lag_profile, truncation_variance
from artbp.truncation import TruncationLaw
from benchmarks.law_design.laws import LAWS, LONGER, design, summed_second_moment, two_hazards

HIDDEN_SIZE, ROWS, WINDOW = 16, 8, 256


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


def compare(num_windows: int, num_samples: int) -> list[dict[str, Any]]:
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
