"""The linear recurrent unit (LRU)."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from artbp import _tree
from artbp.cells.base import input_product, product
from artbp.cells.diagonal import diagonal_cell


class LRUCarry(NamedTuple):
    """The state, in its real and its imaginary part, `[B, hidden_size]` each."""

    real: jax.Array
    imag: jax.Array


def _decay(units: Any) -> jax.Array:
    modulus, phase = jnp.exp(-jnp.exp(units["log_nu"])), jnp.exp(units["log_theta"])
    return jax.lax.complex(modulus * jnp.cos(phase), modulus * jnp.sin(phase))


def _step(units: Any, carry: LRUCarry, z: Any) -> LRUCarry:
    decay, scale = _decay(units), jnp.exp(units["log_gamma"])
    real = decay.real * carry.real - decay.imag * carry.imag + scale * z[0]
    imag = decay.real * carry.imag + decay.imag * carry.real + scale * z[1]
    return LRUCarry(real, imag)


def _output(params: Any, carry: LRUCarry, x: jax.Array) -> jax.Array:
    weights = params["output"]
    y = product(carry.real, weights["real"]) - product(carry.imag, weights["imag"])
    return (y + input_product(weights["skip"], x)).astype(carry.real.dtype)


def _init(
    rng_key: jax.Array,
    input_size: int,
    hidden_size: int,
    *,
    output_size: int | None = None,
    smallest: float = 0.0,
    largest: float = 1.0,
    max_phase: float = 6.283185,
    dtype: Any = jnp.float32,
) -> dict[str, Any]:
    """λ uniform on the ring `smallest` ≤ |λ| ≤ `largest`, with phases in [0, max_phase]."""
    output_size = hidden_size if output_size is None else output_size
    keys = jax.random.split(rng_key, 6)
    wide = _tree.at_least_float32(dtype)  # in a narrow dtype, moduli close to 1 are rounded to 1
    u, v = (jax.random.uniform(key, (hidden_size,), wide, 1e-6, 1.0) for key in keys[:2])
    squared_modulus = u * (largest**2 - smallest**2) + smallest**2
    squared_modulus = jnp.minimum(squared_modulus, 1 - jnp.finfo(wide).epsneg)  # rounded to 1

    def normal(key: jax.Array, rows: int, columns: int, variance: float) -> jax.Array:
        return jax.random.normal(key, (rows, columns), dtype) * jnp.sqrt(variance).astype(dtype)

    return {
        "input": normal(keys[2], input_size, 2 * hidden_size, 1 / (2 * input_size)),
        "units": {
            "log_nu": jnp.log(-0.5 * jnp.log(squared_modulus)).astype(dtype),
            "log_theta": jnp.log(max_phase * v).astype(dtype),
            "log_gamma": (0.5 * jnp.log(1 - squared_modulus)).astype(dtype),
        },
        "output": {
            "real": normal(keys[3], hidden_size, output_size, 1 / hidden_size),
            "imag": normal(keys[4], hidden_size, output_size, 1 / hidden_size),
            "skip": normal(keys[5], input_size, output_size, 1 / input_size),
        },
    }


def _initial_carry(params: Any, batch_size: int) -> LRUCarry:
    log_nu = params["units"]["log_nu"]
    zeros = jnp.zeros((batch_size, log_nu.shape[0]), log_nu.dtype)
    return LRUCarry(zeros, zeros)


lru = diagonal_cell(_step, _output, _init, _initial_carry, _decay)
"""s' = λ s + γ (x B),   y = Re(s' C) + x D,   λ = exp(−exp(log_nu) + i exp(log_theta)).

The state s is complex, and there are no connections between its units. The carry is `LRUCarry(real,
imag)`, which holds s as two real arrays. `params["input"]` is B, its real part beside its imaginary
part; `params["units"]` holds log_nu, log_theta and log γ, `[hidden_size]`; `params["output"]` holds
C as two matrices, and D ("skip"), a full matrix where the source has a diagonal one.

`init` takes `output_size` (of y; by default hidden_size), and the ring of the λ: `smallest` and
`largest` modulus (0 and 1), `max_phase` (2π). γ starts at √(1 − abs(λ)²), which makes the state
about as large as the input.

Source: Orvieto et al., "Resurrecting Recurrent Neural Networks for Long Sequences" (arXiv
2303.06349).
"""
