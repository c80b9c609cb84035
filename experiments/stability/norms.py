"""(i) The norm of the gradient of one sequence, against the spectral radius of the weights."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import artbp
from experiments.common.report import Row
from experiments.stability import methods, system

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
_AT_A_TIME = 32


def run(config: Any) -> list[Row]:
    """Quantiles over draws of weights, sequence and boundaries, all drawn anew for each.

    The draws are the same for every truncation and, but for the factor ρ, for every ρ.
    """
    length, num_draws = config.sequence_length, config.num_norm_draws
    stream = system.sequences(
        config.seed,
        num_draws * config.num_rows,
        num_sequences=1,
        length=length,
        horizon=config.horizon,
    )

    def by_draw(array: Any) -> jax.Array:
        """[T, D · B, 1] -> [D, T, B, 1]."""
        split = jnp.reshape(array, (length, num_draws, config.num_rows, 1))
        return jnp.swapaxes(split, 0, 1)

    init_keys, boundary_keys = jax.random.split(jax.random.key(config.seed), (2, num_draws))
    draws = init_keys, by_draw(stream.xs), by_draw(stream.targets)
    rows = []
    for name in methods.TRUNCATIONS:
        truncation = methods.Truncation(name, config.mean_length, config.alpha, length)
        gates = jax.jit(jax.vmap(lambda key, t=truncation: t.gates(key, length)))(boundary_keys)
        for radius in config.spectral_radii:
            values = np.asarray(_norms(draws, gates, radius, hidden_size=config.hidden_size))
            quantiles = np.quantile(values, QUANTILES)
            rows.append(
                {
                    "part": "norms",
                    "truncation": name,
                    "label": methods.NAMES[name],
                    "spectral_radius": radius,
                    "quantiles": dict(zip(map(str, QUANTILES), quantiles.tolist(), strict=True)),
                    "largest": float(values.max()),
                    "num_draws": num_draws,
                }
            )
    return rows


@jax.jit(static_argnames="hidden_size")
def _norms(draws: Any, all_gates: jax.Array, radius: Any, *, hidden_size: int) -> jax.Array:
    """[D], from (keys [D], xs and targets [D, T, B, 1]) and gates [D, T]."""

    def norm(draw: Any) -> jax.Array:
        (init_key, xs, targets), gates = draw
        params = system.init(init_key, hidden_size, radius)
        stream = artbp.Stream(xs, targets)
        return system.global_norm(jax.grad(system.mean_loss)(params, stream, gates))

    return jax.lax.map(norm, (draws, all_gates), batch_size=_AT_A_TIME)
