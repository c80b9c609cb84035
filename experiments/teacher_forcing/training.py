"""One arm with one seed at all learning rates, in one compiled program."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import artbp
from experiments.common.optimizers import rate_by_time_step
from experiments.common.whole_run import train_whole
from experiments.teacher_forcing import model

NUM_BINS = 50
ESTIMATORS = ("tbptt", "artbp")
NAMES = {"tbptt": "TBPTT", "artbp": "ARTBP"}

# (params, rates, stream, rng_key) -> (params, losses), both with the rates as their first axis.
Trainer = Callable[..., tuple[Any, jax.Array]]


@functools.lru_cache
def trainer(name: str, mean_length: int, alpha: float, num_steps: int, batch_size: int) -> Trainer:
    """The compiled training with one estimator; arms that differ in their data share it.

    Args:
        name: "tbptt" or "artbp".
        mean_length: steps of a segment, on average.
        alpha: of the polynomial law of ARTBP.
        num_steps: of the stream, over which the learning rate falls to zero.
        batch_size: rows.
    """
    normalizer = float(mean_length * batch_size)
    if name == "tbptt":
        estimator = artbp.tbptt(
            model.cell, model.loss_fn, truncation_length=mean_length, normalizer=normalizer
        )
    else:
        law = artbp.truncation.polynomial(mean_length, alpha)
        estimator = artbp.artbp(model.cell, model.loss_fn, law, normalizer=normalizer)
    edges = np.linspace(0, num_steps, min(NUM_BINS, num_steps) + 1).astype(int)
    make_optimizer = functools.partial(adam_falling_to_zero, num_steps)

    def train(params: Any, rate: Any, stream: artbp.Stream, rng_key: jax.Array) -> Any:
        carry = model.initial_carry(params, batch_size)
        outcome = train_whole(
            estimator, make_optimizer, rate, params, carry, stream, rng_key, edges=edges
        )
        return outcome.params, outcome.loss

    return jax.jit(jax.vmap(train, in_axes=(None, 0, None, None)))


def adam_falling_to_zero(num_steps: int, rate: Any) -> optax.GradientTransformation:
    """Adam with the rate (1 − t/T) · `rate`, t in time steps.

    Not in updates, as optax counts: ARTBP makes as many updates as it draws segments.
    """

    falling = rate_by_time_step(lambda t: rate * jnp.maximum(1 - t / num_steps, 0.0))
    return optax.chain(optax.scale_by_adam(), falling)
