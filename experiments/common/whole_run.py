"""A whole training over one pass of a stream, in one compiled program.

For models so small that returning to Python after each update would be the cost; `loop` is for
the large ones. It means

    while not end of stream:
        grads, state, info = estimator.estimate(params, state, stream)
        params = optimizer step
        add info to the bin that the segment begins in

and can be vmapped: over learning rates at little cost, because all of them cut at the same steps.
(But for `adaptive_tbptt`, whose cuts depend on the params: there, each update selects over all that
the loop carries.)
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import artbp


class Outcome(NamedTuple):
    """What a training leaves.

    Attributes:
        params: after the last update.
        loss: float [bins], the mean loss of the segments that begin in a bin; NaN without any.
        num_updates, longest: int32, of all segments.
        largest: the largest |parameter| on the way: how far a run went off, if it came back.
    """

    params: Any
    loss: jax.Array
    num_updates: jax.Array
    longest: jax.Array
    largest: jax.Array


class _Loop(NamedTuple):
    params: Any
    opt_state: Any
    state: Any
    step: jax.Array
    loss_sums: jax.Array
    loss_counts: jax.Array
    num_updates: jax.Array
    longest: jax.Array
    largest: jax.Array


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
        estimator: any row of `artbp.REGISTRY`, or one of your own that can be traced.
        make_optimizer: `make_optimizer(learning_rate) -> optimizer`, which may be traced. An
            optimiser that takes extra arguments is given `value` (the mean loss), `time_step` (of
            the update) and what `info.extra` holds.
        learning_rate: a number, or one of a vmapped array.
        params, carry, stream, rng_key: as for the estimator.
        edges: int [bins + 1], the time steps that bound the bins of the history: 0, …, T.
    """
    optimizer = optax.with_extra_args_support(make_optimizer(learning_rate))
    bins = jnp.asarray(edges[1:-1], jnp.int32)
    state = estimator.init(params, carry, rng_key=rng_key)
    number, none = jnp.zeros((), jnp.result_type(float)), jnp.zeros((), jnp.int32)
    zeros = jnp.zeros((len(edges) - 1,), number.dtype)
    opt_state = optimizer.init(params)
    start = _Loop(params, opt_state, state, none, zeros, zeros, none, none, _largest(params))

    def update(loop: _Loop) -> _Loop:
        grads, state, info = estimator.estimate(loop.params, loop.state, stream)
        step = loop.step + info.length
        count = info.num_losses.astype(number.dtype)
        updates, opt_state = optimizer.update(
            grads,
            loop.opt_state,
            loop.params,
            value=info.loss_sum / jnp.maximum(count, 1),
            time_step=step,
            **info.extra,
        )
        params = optax.apply_updates(loop.params, updates)
        index = jnp.searchsorted(bins, loop.step, side="right")
        return _Loop(
            params=params,
            opt_state=opt_state,
            state=state,
            step=step,
            loss_sums=loop.loss_sums.at[index].add(info.loss_sum.astype(number.dtype)),
            loss_counts=loop.loss_counts.at[index].add(count),
            num_updates=loop.num_updates + 1,
            longest=jnp.maximum(loop.longest, info.length),
            largest=jnp.maximum(loop.largest, _largest(params)),
        )

    loop = jax.lax.while_loop(lambda loop: loop.step < stream.num_steps, update, start)
    return Outcome(
        loop.params,
        loop.loss_sums / loop.loss_counts,
        loop.num_updates,
        loop.longest,
        loop.largest,
    )


def _largest(params: Any) -> jax.Array:
    leaves = [jnp.max(jnp.abs(leaf)) for leaf in jax.tree.leaves(params)]
    return jnp.max(jnp.stack(leaves)).astype(jnp.result_type(float))
