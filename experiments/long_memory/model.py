"""The models: a cell of `CELLS` with a linear readout; for some arms, a critic or a decoder."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import artbp
from artbp import cells, contrib
from experiments.long_memory.arms import Arm
from experiments.long_memory.problems import LENGTH, Problem
from experiments.tasks import losses

STORE_EVERY, TOP_K = 4, 5  # of SAB
CRITIC_UNITS = 32


class Cell(NamedTuple):
    """One recurrence, with its params under "cell".

    Attributes:
        apply: the cell, of the params of the whole model.
        init: `init(rng_key, input_size, units) -> params`.
        initial_carry: `initial_carry(params, rows)`.
        widths: outputs for each unit.
    """

    apply: Any
    init: Callable[[jax.Array, int, int], Any]
    initial_carry: Callable[[Any, int], Any]
    widths: int = 1


def _own(params: Any) -> Any:
    return params["cell"]


def _lstm(window: int, forget_bias: float) -> Cell:
    def init(rng_key: jax.Array, input_size: int, units: int) -> Any:
        return cells.lstm.init(rng_key, input_size, units, forget_bias=forget_bias)

    return Cell(cells.lstm.with_params(_own), init, cells.lstm.initial_carry)


def _sab(window: int, forget_bias: float) -> Cell:
    cell = cells.sab(
        LENGTH // STORE_EVERY, truncation_length=window, store_every=STORE_EVERY, top_k=TOP_K
    )

    def init(rng_key: jax.Array, input_size: int, units: int) -> Any:
        return cell.init(rng_key, input_size, units, forget_bias=forget_bias)

    return Cell(cell.with_params(_own), init, cell.initial_carry, 2)


def _elementwise_lstm(window: int, forget_bias: float) -> Cell:
    cell = cells.elementwise_lstm

    def init(rng_key: jax.Array, input_size: int, units: int) -> Any:
        params = cell.init(rng_key, input_size, units)
        return params | {"bias": params["bias"].at[:units].add(forget_bias)}

    return Cell(cell.with_params(_own), init, cell.initial_carry)


def _lru(window: int, forget_bias: float) -> Cell:
    """The recurrence is linear, so its inputs and its outputs go through a layer each.

    x' = relu(x E + e),   y = gelu(lru(x'))
    """

    def init(rng_key: jax.Array, input_size: int, units: int) -> Any:
        keys = jax.random.split(rng_key)
        glorot = jax.nn.initializers.glorot_uniform()
        encoder = {"kernel": glorot(keys[0], (input_size, units)), "bias": jnp.zeros(units)}
        return {
            "encoder": encoder,
            "lru": cells.lru.init(keys[1], units, units, smallest=0.9, largest=0.999),
        }

    def apply(params: Any, carry: Any, x: jax.Array) -> tuple[Any, jax.Array]:
        own = params["cell"]
        kernel, bias = own["encoder"]["kernel"], own["encoder"]["bias"]
        encoded = kernel[x] if jnp.issubdtype(x.dtype, jnp.integer) else x @ kernel
        carry, y = cells.lru(own["lru"], carry, jax.nn.relu(encoded + bias[None]))
        return carry, jax.nn.gelu(y)

    return Cell(apply, init, lambda params, rows: cells.lru.initial_carry(params["lru"], rows))


CELLS = {"lstm": _lstm, "sab": _sab, "elementwise_lstm": _elementwise_lstm, "lru": _lru}


def critic(params: Any, carry: Any) -> Any:
    """A network of one layer on the carry, with outputs like the carry."""
    own, (leaves, treedef) = params["critic"], jax.tree.flatten(carry)
    hidden = jnp.tanh(jnp.concatenate(leaves, axis=-1) @ own["hidden"] + own["bias"][None])
    ends = np.cumsum([leaf.shape[-1] for leaf in leaves])[:-1]
    return treedef.unflatten(jnp.split(hidden @ own["output"], ends, axis=-1))


def with_auxiliary_loss(
    estimator: artbp.GradientEstimator, arm: Arm, cell: Cell, problem: Problem, config: Any
) -> artbp.GradientEstimator:
    """Adds the losses of a decoder, whose params are `params["decoder"]`: r-LSTM or p-LSTM."""

    def decoder(pair: Any, carry: Any, x: jax.Array) -> tuple[Any, jax.Array]:
        return cells.lstm(pair[1]["cell"], carry, x)

    def decoder_loss(pair: Any, y: jax.Array, x: jax.Array) -> jax.Array:
        loss = losses.cross_entropy if problem.symbols else losses.squared_error
        return loss(pair[1], y, x)

    assert arm.auxiliary is not None
    both = contrib.with_auxiliary_loss(
        estimator,
        cell.apply,
        decoder,
        decoder_loss,
        window=arm.auxiliary,
        window_length=config.window,
        truncation_length=config.window,
        anchor_every=LENGTH,
        weight=config.auxiliary_weight,
        normalizer=float(config.window * config.batch),
    )

    def pair(params: Any) -> Any:
        return {n: params[n] for n in params if n != "decoder"}, params["decoder"]

    def start(params: Any, carry: Any, **options: Any) -> Any:
        return both.init(pair(params), carry, **options)

    def estimate(params: Any, state: Any, stream: artbp.Stream) -> Any:
        (grads, of_decoder), state, info = both.estimate(pair(params), state, stream)
        return grads | {"decoder": of_decoder}, state, info

    return artbp.GradientEstimator(start, estimate)


def init(rng_key: jax.Array, arm: Arm, cell: Cell, problem: Problem, config: Any) -> Any:
    """Returns the first params."""
    keys, units = jax.random.split(rng_key, 5), config.hidden_size
    params = {
        "cell": cell.init(keys[0], problem.input_size, units),
        "readout": losses.init_readout(keys[1], cell.widths * units, problem.output_size),
    }
    if arm.has_critic:
        carry = cell.initial_carry(params["cell"], 1)
        size = sum(leaf.shape[-1] for leaf in jax.tree.leaves(carry))
        params["critic"] = {
            "hidden": jax.random.normal(keys[2], (size, CRITIC_UNITS)) / np.sqrt(size),
            "bias": jnp.zeros(CRITIC_UNITS),
            "output": jnp.zeros((CRITIC_UNITS, size)),
        }
    if arm.auxiliary:
        params["decoder"] = {
            "cell": cells.lstm.init(keys[3], problem.input_size, units),
            "readout": losses.init_readout(keys[4], units, problem.input_size),
        }
    return params
