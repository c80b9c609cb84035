"""Defines a system whose one parameter acts at once and, with the opposite sign, later on.

    r_t = ρ r_{t−1} + θ x_t,    o_t = θ x_t + g r_{t−1},    ℓ_t = ½ (o_t − y_t)²
    y_t = x_t − g Σ_{k≥1} ρ^{k−1} x_{t−k} + σ ε_t,           x_t, ε_t ~ N(0, 1), independent

so o_t = θ Σ_k h_k x_{t−k} with h = (1, g, gρ, gρ², …). Of the target y_t, lag 0 is matched by
θ = 1 and every later lag by θ = −1. The memory is τ = −1/ln ρ steps, and g² = S (1 − ρ²), so that
the later lags together have the power S = Σ_{k≥1} h_k² at every τ. The optimum is then the same at
every τ, θ* = (1 − S)/(1 + S), while a gradient that does not look back settles at 1.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import artbp


class System(NamedTuple):
    """The memory τ in time steps, the later power S, the noise σ."""

    memory: float
    later_power: float
    noise: float

    @property
    def decay(self) -> float:
        """ρ."""
        return float(np.exp(-1 / self.memory))

    @property
    def gain(self) -> float:
        """g."""
        return float(np.sqrt(self.later_power * (1 - self.decay**2)))

    @property
    def curvature(self) -> float:
        """Λ = Σ_k h_k²: the excess of the mean loss over its least is ½ Λ (θ − θ*)²."""
        return 1 + self.later_power

    @property
    def optimum(self) -> float:
        """θ*."""
        return (1 - self.later_power) / (1 + self.later_power)

    def filters(self) -> tuple[np.ndarray, np.ndarray]:
        """(h, w): o = θ h∗x and y = w∗x + σ ε, until what is left is below 1e-5 of its start."""
        lags = np.arange(int(12 * self.memory) + 64)
        later = self.gain * self.decay**lags
        return np.concatenate([[1.0], later]), np.concatenate([[1.0], -later])


def cell(params: Any, carry: Any, x: Any) -> tuple[Any, Any]:
    """Takes a step. carry: r and the constants (ρ, g); x, y `[B]`; params: {"theta"}."""
    r, decay, gain = carry
    push = params["theta"] * x
    return (decay * r + push, decay, gain), push + gain * r


def loss_fn(params: Any, y: Any, target: Any) -> Any:
    """Returns ½ (y − target)², `[B]`."""
    return jnp.square(y - target) / 2


def initial_carry(decay: Any, gain: Any, batch: int) -> Any:
    """Returns the carry with r = 0."""
    return jnp.zeros((batch,)), jnp.asarray(decay), jnp.asarray(gain)


def make_stream(
    rng_key: jax.Array, decay: Any, gain: Any, noise: Any, num_steps: int, batch: int
) -> artbp.Stream:
    """Draws x and y, `[T, B]`; no input comes before the first step."""
    x_key, noise_key = jax.random.split(rng_key)
    xs = jax.random.normal(x_key, (num_steps, batch))

    def step(r: Any, x: Any) -> tuple[Any, Any]:
        return decay * r + x, x - gain * r

    _, wanted = jax.lax.scan(step, jnp.zeros((batch,)), xs)
    return artbp.Stream(xs, wanted + noise * jax.random.normal(noise_key, (num_steps, batch)))
