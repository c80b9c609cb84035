"""The slopes that unbiased TBPTT estimates, from the parts of the gradient between two windows.

    G[n, m]   derivative of the losses of window n in the params of window m ≤ n, along a direction
    estimate  Σ_n Σ_{j < A_n} G[n, n − j] / S(j),    A_n: the look-back of window n

The parts of one inner training give the estimates of any number of draws, and the exact variance.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from artbp.truncation import TruncationLaw, look_back_variance
from experiments.hyperparameters.problems import InnerTraining, Params


def slopes_by_distance(
    problem: InnerTraining, params: Params, carry: Any, stream: Any, direction: Any, length: int
) -> jax.Array:
    """G[n, n − j] at [n, j], zero for j > n: `[windows, windows]`."""
    num_windows = -(-problem.num_steps // length)
    window = jnp.arange(problem.num_steps) // length

    def losses(shifts: jax.Array) -> jax.Array:
        """Of each window, where the params of window m are moved by shifts[m]·direction."""

        def step(carry: Any, given: Any) -> tuple[Any, jax.Array]:
            x, shift = given
            moved = {
                name: params[name] + shift * along
                for name, along in zip(("log_rate_start", "log_rate_end"), direction, strict=True)
            }
            carry, y = problem.cell(moved, carry, x)
            return carry, problem.loss_fn(moved, y, None)

        _, of_steps = jax.lax.scan(step, carry, (stream.xs, shifts[window]))
        return jnp.zeros(num_windows).at[window].add(of_steps)

    parts = jax.jacfwd(losses)(jnp.zeros(num_windows))  # [n, m]
    n, j = np.indices(parts.shape)
    return jnp.where(j <= n, parts[n, n - j], 0.0)


def draw(law: TruncationLaw, parts: jax.Array, rng_key: jax.Array, number: int) -> jax.Array:
    """The estimates of `number` draws of all look-backs, from `slopes_by_distance`: `[number]`."""
    num_windows = len(parts)
    distance = np.arange(num_windows)
    keys = jax.random.split(rng_key, (number, num_windows))
    look_backs = jax.vmap(jax.vmap(lambda key: law.sample_length(key, num_windows)))(keys)
    weights = (look_backs[..., None] > distance) / law.survival(distance)
    return jnp.einsum("dnj,nj->d", weights, parts)


def variance(law: TruncationLaw, parts: Any) -> float:
    """The variance of one estimate over its look-backs."""
    remainders = np.cumsum(np.asarray(parts)[:, ::-1], axis=1)[:, ::-1]
    return sum(look_back_variance(law, of_window[1:] ** 2) for of_window in remainders)
