"""The variance of the gradient of a pass against how long a perturbation lasts."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import artbp
from experiments.common.report import Row, interval
from experiments.lorenz.config import num_groups
from experiments.lorenz.system import System, make_system

_BATCHES = 10  # of draws, for the intervals


def lasting(config: Any) -> list[int]:
    """Steps that a perturbation lasts: W (PES), divisors of the number of unrolls, T (NRES)."""
    unrolls = num_groups(config)
    return [config.truncation_length * n for n in range(1, unrolls + 1) if unrolls % n == 0]


def pass_gradients(system: System, config: Any, draw_every: int, rng_keys: jax.Array) -> np.ndarray:
    """The mean gradient over the unrolls of a pass with one pair, `[keys, 2]`, frozen params."""
    estimator = artbp.gpes(
        system.cell,
        system.loss_fn,
        truncation_length=config.truncation_length,
        draw_every=draw_every,
        num_pairs=1,
        scale=config.scale,
        normalizer=float(config.num_steps),
    )

    def of_key(rng_key: jax.Array) -> jax.Array:
        def unroll(state: Any, _: Any) -> tuple[Any, jax.Array]:
            grads, state, _ = estimator.estimate(system.params, state, system.stream)
            return state, jnp.stack([grads["log_a"], grads["log_r"]])

        state = estimator.init(system.params, system.carry, rng_key=rng_key)
        return jnp.sum(jax.lax.scan(unroll, state, length=num_groups(config))[1], axis=0)

    return np.asarray(jax.jit(jax.vmap(of_key))(rng_keys), np.float64)


def run(config: Any) -> list[Row]:
    """A row for each of `lasting`: the sum of the variances of both entries, over that of PES."""
    system = make_system(config)
    keys = jax.random.split(jax.random.key(config.seed), config.variance_draws)
    gradients = functools.partial(pass_gradients, system, config)

    def variances(values: np.ndarray) -> np.ndarray:
        batches = np.array_split(values, _BATCHES)
        return np.array([batch.var(axis=0, ddof=1).sum() for batch in batches])

    found = {steps: gradients(steps, keys) for steps in lasting(config)}
    of_pes, rows = variances(found[config.truncation_length]), []
    for steps, values in found.items():
        # The logarithm of a ratio of two noisy numbers is closer to normal than the ratio.
        middle, half = interval(np.log(variances(values) / of_pes))
        rows.append(
            {
                "part": "variance",
                "draw_every": steps,
                "variance": float(values.var(axis=0, ddof=1).sum()),
                "ratio": float(np.exp(middle)),
                "ratio_interval": [float(np.exp(middle - half)), float(np.exp(middle + half))],
                "mean": values.mean(axis=0).tolist(),
                "standard_error": (values.std(axis=0, ddof=1) / np.sqrt(len(values))).tolist(),
            }
        )
    return rows
