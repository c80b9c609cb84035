"""Trains over one whole pass of a stream, in one compiled program.

It serves small models, for which a return to Python after each update would dominate the time;
`loop` serves the large ones. It means

    while not end of stream:
        grads, state, info = estimator.estimate(params, state, stream)
        params = optimizer step
        add info to the bin that the segment begins in

It can be vmapped over learning rates at little cost, because all of them cut at the same steps.
(The exception is `adaptive_tbptt`, whose cuts depend on the params.)
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import artbp


class Outcome(NamedTuple):
    """The result of a training.

    Attributes:
        params: after the last update.
        loss: float [bins], the mean loss of the segments that begin in a bin; NaN without any.
        num_updates, longest: int32, the number of segments, and the length of the longest.
        largest: the largest |parameter| that occurred, which shows whether a run went off, even if
            it came back.
    """

    params: Any
    loss: jax.Array
    num_updates: jax.Array
    longest: jax.Array
    largest: jax.Array


class _Loop(NamedTuple):
    opt_state: Any
    state: Any
    step: jax.Array
    loss_counts: jax.Array
    so_far: Outcome  # with sums in place of mean losses


def train_whole(
    estimator: artbp.GradientEstimator,
    make_optimizer: Callable[[Any], optax.GradientTransformation],
    learning_rate: Any,
    params: Any,
    carry: Any,
    stream: artbp.Stream,
    rng_key: jax.Array,
    *,
    edges: np.ndarray,
) -> Outcome:
    """Trains `params` over one pass of `stream`, one update per estimate.

    Args:
        estimator: any entry of `artbp.REGISTRY`, or one of your own that can be traced.
        make_optimizer: `make_optimizer(learning_rate) -> optimizer`; the rate may be traced. An
            optimiser that takes extra arguments is given `value` (the mean loss), `time_step` (of
            the update) and the entries of `info.extra`.
        learning_rate: a number, or one of a vmapped array.
        params, carry, stream, rng_key: as for the estimator.
        edges: int [bins + 1], the time steps that bound the bins of the history: 0, …, T.
    """
    optimizer = optax.with_extra_args_support(make_optimizer(learning_rate))
    bins = jnp.asarray(edges[1:-1], jnp.int32)
    none = jnp.zeros((), jnp.int32)
    zeros = jnp.zeros((len(edges) - 1,), jnp.result_type(float))

    def update(loop: _Loop) -> _Loop:
        so_far = loop.so_far
        grads, state, info = estimator.estimate(so_far.params, loop.state, stream)
        step = loop.step + info.length
        count = info.num_losses.astype(zeros.dtype)
        updates, opt_state = optimizer.update(
            grads,
            loop.opt_state,
            so_far.params,
            value=info.loss_sum / jnp.maximum(count, 1),
            time_step=step,
            **info.extra,
        )
        params = optax.apply_updates(so_far.params, updates)
        index = jnp.searchsorted(bins, loop.step, side="right")
        so_far = Outcome(
            params=params,
            loss=so_far.loss.at[index].add(info.loss_sum.astype(zeros.dtype)),
            num_updates=so_far.num_updates + 1,
            longest=jnp.maximum(so_far.longest, info.length),
            largest=jnp.maximum(so_far.largest, _largest(params)),
        )
        return _Loop(opt_state, state, step, loop.loss_counts.at[index].add(count), so_far)

    opt_state, state = optimizer.init(params), estimator.init(params, carry, rng_key=rng_key)
    start = Outcome(params, zeros, none, none, _largest(params))
    loop = jax.lax.while_loop(
        lambda loop: loop.step < stream.num_steps,
        update,
        _Loop(opt_state, state, none, zeros, start),
    )
    return loop.so_far._replace(loss=loop.so_far.loss / loop.loss_counts)


def _largest(params: Any) -> jax.Array:
    leaves = [jnp.max(jnp.abs(leaf)) for leaf in jax.tree.leaves(params)]
    return jnp.max(jnp.stack(leaves)).astype(jnp.result_type(float))
