"""A GRU that forecasts one step ahead, from the true value or from its own last forecast."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

import artbp
from experiments.tasks import losses

core = artbp.cells.gru


class Input(NamedTuple):
    """What a step is given.

    Attributes:
        value: float [B, 1], the true value.
        shown: bool [B], whether the cell sees it.
    """

    value: Any
    shown: Any


class Carry(NamedTuple):
    """What a step leaves to the next one.

    Attributes:
        hidden: float [B, H], of the GRU.
        forecast: float [B, 1], of the value that comes next.
    """

    hidden: Any
    forecast: Any


def cell(params: Any, carry: Carry, x: Input) -> tuple[Carry, jax.Array]:
    """One step; y is the new forecast, [B, 1].

        u = x.value where x.shown, else carry.forecast
        hidden = GRU(carry.hidden, u)
        forecast = readout(hidden)

    A forecast that is fed back is differentiated like the rest of the carry: its gradient goes
    through the gate too. The readout is part of the cell because its result is fed back.
    """
    u = jnp.where(x.shown[:, None], x.value, carry.forecast)
    hidden, y = core(params["cell"], carry.hidden, u)
    forecast = losses.readout(params, y)
    return Carry(hidden, forecast), forecast


def loss_fn(params: Any, y: jax.Array, target: jax.Array) -> jax.Array:
    """(y − target)², [B]."""
    del params
    return jnp.sum(jnp.square(y - target), axis=-1)


def init(rng_key: jax.Array, hidden_size: int) -> Any:
    """{"cell": of artbp.cells.gru, "readout": {"kernel", "bias"}}."""
    cell_key, readout_key = jax.random.split(rng_key)
    return {
        "cell": core.init(cell_key, 1, hidden_size),
        "readout": losses.init_readout(readout_key, hidden_size, 1),
    }


def initial_carry(params: Any, batch_size: int) -> Carry:
    """Zeros: a forecast of zero is the mean of the standardised series."""
    hidden = core.initial_carry(params["cell"], batch_size)
    return Carry(hidden, jnp.zeros((batch_size, 1), hidden.dtype))
