"""Defines the systems of the comparison: what is trained, and how a training is scored.

There is influence balancing in five forms: with the loss at every step or at the end of each
unroll, with a noisy drive (an irreducible loss), and with other sizes, so that the influences to
balance reach over fewer or more steps. The sixth system is a task of `experiments.tasks`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import artbp
from artbp import cells
from experiments.common.arms import Size
from experiments.influence_balancing import system as balancing
from experiments.tasks import brackets, losses

NAMES = ("balancing", "unroll_end", "noisy", "short", "long", "learning")


@dataclass(frozen=True)
class System:
    """One column of the table.

    Attributes:
        start: `start(seed) -> (params, carry)`.
        stream: `stream(seed, num_steps) -> artbp.Stream`.
        score: `score(params, loss) -> number`, 0 at the optimum and 1 at the start (or for a model
            without memory), from the last params and the mean loss of the last part of the stream.
        optimizer: "sgd" with rate η/√(1 + t), t in time steps, or "adam".
        always_random: whether streams or params differ between seeds.
    """

    name: str
    label: str
    cell: Any
    loss_fn: Any
    start: Callable[[int], tuple[Any, Any]]
    stream: Callable[[int, int], artbp.Stream]
    score: Callable[[Any, jax.Array], jax.Array]
    rates: tuple[float, ...]
    optimizer: str
    always_random: bool
    size: Size


def influence_balancing(
    name: str,
    label: str,
    rates: tuple[float, ...],
    *,
    num_states: int = 23,
    num_positive: int = 10,
    drive_noise: float = 0.0,
    loss_every: int = 1,
) -> System:
    """Makes `experiments.influence_balancing.system` with n = num_states and p = num_positive.

    `drive_noise` is the σ of the drive's noise; the loss counts at every `loss_every`-th step.
    """
    signs = np.where(np.arange(num_states) < num_positive, 1.0, -1.0)
    influences = balancing.influence(4000, signs)
    gain = influences.sum()
    noise = drive_noise**2 * np.square(influences).sum()
    optimum = balancing.TARGET * gain / (gain**2 + noise)
    theta_0 = 0.5

    def stream(seed: int, num_steps: int) -> artbp.Stream:
        rng = np.random.default_rng([seed, 1])
        xs = 1.0 + drive_noise * rng.standard_normal(num_steps)
        mask = None if loss_every == 1 else np.arange(1, num_steps + 1) % loss_every == 0
        return artbp.Stream(xs, mask=mask)

    return System(
        name=name,
        label=label,
        cell=lambda params, carry, x: balancing.step(params["theta"], signs, carry, x),
        loss_fn=balancing.loss_fn,
        start=lambda seed: ({"theta": jnp.asarray(theta_0)}, jnp.ones((num_states,))),
        stream=stream,
        score=lambda params, loss: jnp.abs(params["theta"] - optimum) / abs(theta_0 - optimum),
        rates=rates,
        optimizer="sgd",
        always_random=drive_noise > 0,
        size=Size(1, num_states),
    )


def learning(config: Any) -> System:
    """Makes brackets for a GRU with a readout; the score is the share of the memoryless loss."""
    task = brackets(min_distance=config.distance, max_distance=config.distance)
    optimum, memoryless = task.baselines["optimum"], task.baselines["memoryless"]

    def start(seed: int) -> tuple[Any, Any]:
        keys = jax.random.split(jax.random.key(seed), 2)
        params = {
            "cell": cells.gru.init(keys[0], task.input_size, config.hidden_size),
            "readout": losses.init_readout(keys[1], config.hidden_size, task.output_size),
        }
        return params, cells.gru.initial_carry(params["cell"], config.batch)

    shapes = jax.eval_shape(lambda: start(0))
    size = Size(*(sum(leaf.size for leaf in jax.tree.leaves(part)) for part in shapes))
    return System(
        name="learning",
        label=f"brackets {config.distance} steps apart",
        # A plain function, so that every estimator does the same work for a step.
        cell=lambda params, carry, x: cells.gru(params["cell"], carry, x),
        loss_fn=losses.loss_fn(task),
        start=start,
        stream=lambda seed, num_steps: next(task.chunks(seed + 1, config.batch, num_steps)).stream,
        score=lambda params, loss: (loss - optimum) / (memoryless - optimum),
        rates=tuple(config.adam_rates),
        optimizer="adam",
        always_random=True,
        size=size,
    )


def systems(config: Any) -> list[System]:
    """Returns all systems, in the order of the table."""
    forms: dict[str, tuple[str, dict[str, Any]]] = {
        "balancing": ("influence balancing", {}),
        "unroll_end": ("loss once per unroll", {"loss_every": config.loss_every}),
        "noisy": ("noisy drive", {"drive_noise": 1.0}),
        "short": ("n = 11, p = 4", {"num_states": 11, "num_positive": 4}),
        "long": ("n = 47, p = 22", {"num_states": 47, "num_positive": 22}),
    }
    found = [
        influence_balancing(name, label, tuple(config.sgd_rates), **sizes)
        for name, (label, sizes) in forms.items()
    ]
    return [*found, learning(config)]
