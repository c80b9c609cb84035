"""The cell of Sparse Attentive Backtracking: an LSTM with a sparse attention over older states."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from artbp import _tree
from artbp._checks import check_integer
from artbp.cells.base import ReferenceCell, product
from artbp.cells.lstm import lstm
from artbp.cells.lstm_recurrence import LSTMCarry
from artbp.unrolls.gate import gate

_EPSILON = 1e-7  # added to the sum of the weights, which may be 0; as in the source


class SABCarry(NamedTuple):
    """What a step of `sab` needs. All zeros at the beginning of a sequence.

    Attributes:
      lstm: `LSTMCarry`; its hidden state is h.
      memories: the stored states m_i, a ring, `[B, memory_size, hidden_size]`.
      scores: v · tanh m_i, computed when m_i was stored, `[B, memory_size]`.
      num_steps: int32 `[B]`, how many steps the sequence has had. The places of the ring that are
        filled, the next place, and the next boundary follow from it.
    """

    lstm: LSTMCarry
    memories: jax.Array
    scores: jax.Array
    num_steps: jax.Array


def sab(
    memory_size: int, *, truncation_length: int = 10, store_every: int = 2, top_k: int = 10
) -> ReferenceCell:
    """Makes an LSTM that reads a few older states, through which gradients reach far back.

        c', ĥ = lstm(params, (c, h), x)
        a_i   = u · tanh ĥ + v · tanh m_i                of each stored state m_i
        α_i   = relu(a_i − a_(top_k)) / Σ_j relu(a_j − a_(top_k))
        s     = Σ_i α_i m_i,    h' = ĥ + s,    y = [h', s]
        every store_every steps:         m_new = h'
        every truncation_length steps:   c', h' = stop_gradient((c', h'))

    a_(top_k) is the top_k-th largest score, so at most top_k − 1 states are read. The gradient
    flows from a step to the states that it reads, at any distance, and from each of them back to
    the last boundary before it.

    The boundaries are part of the cell. Run it over whole sequences, with `artbp.bptt`, or with
    `artbp.unroll` and `jax.grad`: the boundary of an estimator, such as `artbp.tbptt`, stops the
    gradient to all stored states.

    The term of ĥ is the same for all i, so it vanishes in α: as in the source, what is read does
    not depend on ĥ. The exception is a sequence with `top_k` stored states or fewer, where α = a.

    `jax.jvp` has the same boundaries as `jax.grad`, and so have all estimators except those that
    perturb the parameters (`artbp.pes` and its relatives). These follow the losses alone, and
    estimate the gradient without boundaries.

    Of each step the backward pass stores the whole carry, which is `memory_size` states and more.
    `checkpoint` of `artbp.unroll` and `block_size` of `artbp.bptt` reduce the number of steps.

    The carry is `SABCarry`, and y is `[B, 2 hidden_size]`. `params` are those of `lstm` and
    "query" u and "key" v, `[hidden_size]`. `init` takes `forget_bias` (1 by default).

    Args:
      memory_size: how many states the ring holds; then the newest replaces the oldest.
      truncation_length: steps from one boundary to the next.
      store_every: steps from one stored state to the next.
      top_k: 2 or more, and below memory_size.

    Raises:
      ValueError: a number outside its range.

    Source: Ke et al., "Sparse Attentive Backtracking: Temporal Credit Assignment Through Reminding"
    (arXiv 1809.03702), and their code, github.com/nke001/sparse_attentive_backtracking_release,
    which also stores the zeros before the first step, and has each boundary one step earlier: a
    state stored at a multiple of truncation_length is there the first of its segment, not the last.
    """
    check_integer(1, truncation_length=truncation_length, store_every=store_every)
    check_integer(2, top_k=top_k)
    check_integer(top_k + 1, memory_size=memory_size)

    def apply(params: Any, carry: SABCarry, x: jax.Array) -> tuple[SABCarry, jax.Array]:
        (memory, hidden), _ = lstm(params, carry.lstm, x)
        num_stored = carry.num_steps // store_every
        scores = _dot(hidden, params["query"])[:, None] + carry.scores
        read = _read(_weights(scores, num_stored, top_k), carry.memories).astype(hidden.dtype)
        hidden = hidden + read

        num_steps = carry.num_steps + 1
        size = carry.memories.shape[1]
        place = jnp.where(num_steps % store_every == 0, num_stored % size, size)
        is_new = jnp.arange(size, dtype=jnp.int32)[None] == place[:, None]
        score = _dot(hidden, params["key"]).astype(carry.scores.dtype)
        is_inside = (num_steps % truncation_length != 0).astype(hidden.dtype)
        after = SABCarry(
            gate(LSTMCarry(memory, hidden), is_inside),
            jnp.where(is_new[:, :, None], hidden[:, None], carry.memories),
            jnp.where(is_new, score[:, None], carry.scores),
            num_steps,
        )
        return after, jnp.concatenate([hidden, read], axis=-1)

    return ReferenceCell(apply, _init, functools.partial(_initial_carry, memory_size=memory_size))


def _dot(state: jax.Array, weights: jax.Array) -> jax.Array:
    """weights · tanh(state), `[B]`, float32 or wider."""
    return product(jnp.tanh(state), weights)


def _weights(scores: jax.Array, num_stored: jax.Array, top_k: int) -> jax.Array:
    """The α of the places of the ring, `[B, M]`; 0 where none is stored yet."""
    is_stored = jnp.arange(scores.shape[1], dtype=jnp.int32)[None] < num_stored[:, None]
    is_sparse = num_stored[:, None] > top_k
    candidates = jnp.where(is_stored, scores, jnp.finfo(scores.dtype).min)
    threshold = jax.lax.top_k(candidates, top_k)[0][:, -1:]
    # Selected before it is subtracted: a difference from the smallest float would be infinite.
    above = jnp.where(is_stored, scores - jnp.where(is_sparse, threshold, 0), 0)
    above = jnp.where(is_sparse, jax.nn.relu(above), above)
    return above / jnp.where(is_sparse, jnp.sum(above, axis=1, keepdims=True) + _EPSILON, 1)


def _read(weights: jax.Array, memories: jax.Array) -> jax.Array:
    """s, `[B, H]`."""
    return jnp.sum(weights[:, :, None] * memories.astype(weights.dtype), axis=1)


def _init(
    rng_key: jax.Array,
    input_size: int,
    hidden_size: int,
    *,
    forget_bias: float = 1.0,
    dtype: Any = jnp.float32,
) -> dict[str, jax.Array]:
    """The weights of `lstm`; those of the scores are normal with standard deviation 0.01."""
    lstm_key, query_key, key_key = jax.random.split(rng_key, 3)
    params = lstm.init(lstm_key, input_size, hidden_size, forget_bias=forget_bias, dtype=dtype)
    query, key = (0.01 * jax.random.normal(k, (hidden_size,), dtype) for k in (query_key, key_key))
    return {**params, "query": query, "key": key}


def _initial_carry(params: Any, batch_size: int, *, memory_size: int) -> SABCarry:
    state = lstm.initial_carry(params, batch_size)
    return SABCarry(
        lstm=state,
        memories=jnp.zeros((batch_size, memory_size, state.hidden.shape[1]), state.hidden.dtype),
        scores=jnp.zeros((batch_size, memory_size), _tree.at_least_float32(state.hidden.dtype)),
        num_steps=jnp.zeros((batch_size,), jnp.int32),
    )
