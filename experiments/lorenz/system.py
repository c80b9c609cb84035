"""The Lorenz system whose parameters are learned, and the estimators.

    x' = x + a (y − x) dt,   y' = y + ((r − z) x − y) dt,   z' = z + (x y − b z) dt,
    ℓ_t = (z_t − z*_t)²

a and r are learned as their logarithms, and b = 8/3 is known. z* is the trajectory at a = 10 and
r = 28. All trajectories start at (1.2, 1.3, 1.6).

Source: Li et al., arXiv 2304.12180, and their code, github.com/OscarcarLi/Noise-Reuse-Evolution-
Strategies: system, start, σ, window and first parameters.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

import artbp
from experiments.common.figures import COLOURS

TRUTH = {"log_a": math.log(10), "log_r": math.log(28)}
_START = (1.2, 1.3, 1.6)
_B = 8 / 3


class System(NamedTuple):
    """One row."""

    cell: Any
    loss_fn: Any
    params: Any  # the first ones
    carry: jax.Array
    stream: artbp.Stream

    def mean_loss(self, params: Any) -> jax.Array:
        """The loss of the unperturbed system, mean over the stream."""
        _, ys = artbp.unroll(self.cell, params, self.carry, self.stream.xs)
        return jnp.mean((ys[:, 0, 2] - self.stream.targets[:, 0]) ** 2)


def make_system(config: Any) -> System:
    """The system of the configuration, whose stream holds the true z."""

    def cell(params: Any, carry: jax.Array, _: Any) -> tuple[jax.Array, jax.Array]:
        x, y, z = jnp.moveaxis(carry, -1, 0)
        dx = jnp.exp(params["log_a"]) * (y - x)
        dy = (jnp.exp(params["log_r"]) - z) * x - y
        carry = carry + config.dt * jnp.stack([dx, dy, x * y - _B * z], axis=-1)
        return carry, carry

    def loss_fn(params: Any, y: jax.Array, target: jax.Array) -> jax.Array:
        del params
        return (y[..., 2] - target) ** 2

    carry, xs = jnp.array([_START]), jnp.zeros((config.num_steps, 1))
    _, truth = artbp.unroll(cell, TRUTH, carry, xs)
    params = {"log_a": jnp.asarray(config.log_a), "log_r": jnp.asarray(config.log_r)}
    return System(cell, loss_fn, params, carry, artbp.Stream(xs, truth[:, :, 2]))


class Arm(NamedTuple):
    """An estimator of the comparison; `build(system, config, num_particles)`."""

    label: str
    color: str
    build: Callable[[System, Any, int], artbp.GradientEstimator]


def _strategy(estimator: Any, **options: Any) -> Any:
    def build(system: System, config: Any, num_particles: int) -> artbp.GradientEstimator:
        return estimator(
            system.cell,
            system.loss_fn,
            truncation_length=config.truncation_length,
            num_pairs=num_particles,
            scale=config.scale,
            normalizer=float(config.truncation_length),
            **{name: value(config) for name, value in options.items()},
        )

    return build


def _forward_gradient(system: System, config: Any, num_particles: int) -> Any:
    return artbp.forward_gradient(
        system.cell,
        system.loss_fn,
        update_every=config.truncation_length,
        num_directions=num_particles,
        normalizer=float(config.truncation_length),
    )


def _tbptt(system: System, config: Any, num_particles: int) -> Any:
    del num_particles  # its gradient is not random
    length = config.truncation_length
    options = {"truncation_length": length, "normalizer": float(length)}
    return artbp.tbptt(system.cell, system.loss_fn, **options)


ARMS = {
    "tbptt": Arm("TBPTT", COLOURS[5], _tbptt),
    "truncated_es": Arm("truncated ES", COLOURS[4], _strategy(artbp.truncated_es)),
    "pes": Arm("PES", COLOURS[0], _strategy(artbp.pes)),
    "gpes": Arm(
        "GPES", COLOURS[2], _strategy(artbp.gpes, draw_every=lambda c: 5 * c.truncation_length)
    ),
    "nres": Arm("NRES", COLOURS[3], _strategy(artbp.nres)),
    "forward_gradient": Arm("forward gradient", COLOURS[1], _forward_gradient),
}
