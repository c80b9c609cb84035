"""Ways to walk along a stream once, with an SGD update per segment.

An estimator whose policy can be traced walks in one compiled program; `exact` and `pow2` are
driven by the host. TBPTT is also written by hand, as one would without an estimator: the gradient
of an unroll over each 50 steps.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

import artbp
from artbp.unrolls import static_lengths
from benchmarks.model import CELLS, Layer, gates_of, initial_carry

MEAN_LENGTH, ALPHA = 50, 4.0
_LEARNING_RATE = 0.1


class Walk(NamedTuple):
    """One contender.

    Attributes:
      prepare: () -> the arguments of `run`, fresh ones: `run` consumes them.
      run: arguments -> (params, longest segment), after all segments of the stream.
      frozen: () -> (gradient summed over one pass with frozen params, the gates of that pass).
    """

    prepare: Callable[[], Any]
    run: Callable[[Any], tuple[Any, Any]]
    frozen: Callable[[], tuple[Any, Any]]


def estimator_walk(method: str, policy: artbp.unrolls.Policy, cell: str, layer: Layer) -> Walk:
    """`method` "artbp" (L0 = 50, α = 4) or "tbptt" (50)."""
    law = artbp.truncation.never()
    # Room for every length that occurs: `exact` would compile again what its cache has dropped.
    static_lengths._CACHE_SIZE = 4096
    options: dict[str, Any] = {"policy": policy}
    if method == "artbp":
        law = artbp.truncation.polynomial(MEAN_LENGTH, ALPHA)
        estimator = artbp.artbp(CELLS[cell], layer.loss_fn, law, **options)
    else:
        options["truncation_length"] = MEAN_LENGTH
        estimator = artbp.tbptt(CELLS[cell], layer.loss_fn, **options)
    return _walk(estimator, layer, law, compiles=policy == "dynamic")


def _walk(estimator: artbp.GradientEstimator, layer: Layer, law: Any, *, compiles: bool) -> Walk:
    """A pass of the stream; `compiles`: in one program, for estimators that can be traced."""
    stream, batch = layer.stream, layer.symbols.shape[1]

    def prepare() -> tuple[Any, Any]:
        params = jax.tree.map(jnp.copy, layer.params)
        carry = initial_carry(params, batch)
        return params, estimator.init(params, carry, rng_key=jax.random.key(1))

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def compiled(params: Any, state: Any, stream: artbp.Stream) -> Any:
        def segment(loop: Any) -> Any:
            params, state, longest, _ = loop
            grads, state, info = estimator.estimate(params, state, stream)
            longest = jnp.maximum(longest, info.length)
            return _sgd(params, grads, batch), state, longest, info.end_of_stream

        start = (params, state, jnp.zeros((), jnp.int32), jnp.zeros((), bool))
        params, state, longest, _ = jax.lax.while_loop(lambda loop: ~loop[3], segment, start)
        return params, longest, state

    def run(arguments: Any) -> tuple[Any, Any]:
        if compiles:
            params, longest, _ = compiled(*arguments, stream)
            return params, longest
        params, state = arguments
        longest, at_end = 0, False
        while not at_end:
            grads, state, info = estimator.estimate(params, state, stream)
            params = _update(params, grads, batch)
            longest, at_end = max(longest, int(info.length)), bool(info.end_of_stream)
        return params, longest

    def frozen() -> tuple[Any, Any]:
        params, state = prepare()
        lengths = []

        def fold(total: Any, grads: Any, info: artbp.EstimatorInfo) -> Any:
            lengths.append(int(info.length))
            return jax.tree.map(jnp.add, total, grads)

        zeros = jax.tree.map(jnp.zeros_like, params)
        total, _ = artbp.run_pass(estimator, params, state, stream, fold=fold, initial=zeros)
        return total, gates_of(law, lengths)

    return Walk(prepare, run, frozen)


def unbiased_walk(mode: str, cell: str, layer: Layer) -> Walk:
    """Unbiased TBPTT 50 whose look-back goes on over each edge with probability 1/4.

    The gradient that is checked is one without look-back, which is that of TBPTT.
    """
    make = functools.partial(
        artbp.unbiased_tbptt,
        CELLS[cell],
        layer.loss_fn,
        truncation_length=MEAN_LENGTH,
        mode=mode,
    )
    tbptt, law = artbp.truncation.fixed(1), artbp.truncation.geometric(4 / 3)
    checked = _walk(make(tbptt), layer, artbp.truncation.never(), compiles=True)
    timed = _walk(make(law), layer, None, compiles=True)
    return timed._replace(frozen=checked.frozen)


def scan(cell: Any, params: Any, carry: Any, xs: Any) -> tuple[Any, Any]:
    """`jax.lax.scan` with the arguments of `artbp.fused_unroll`."""
    return jax.lax.scan(functools.partial(cell, params), carry, xs)


def unroll_walk(unroll: Any, cell: str, layer: Layer) -> Walk:
    """TBPTT by `jax.value_and_grad` of `unroll`, which is `scan` or `artbp.fused_unroll`."""
    num_steps, batch = layer.symbols.shape
    if num_steps % MEAN_LENGTH:
        raise ValueError(f"{num_steps} time steps are no multiple of {MEAN_LENGTH}")
    data = (layer.symbols, layer.targets)
    segments = jax.device_put(
        jax.tree.map(lambda x: x.reshape(-1, MEAN_LENGTH, *x.shape[1:]), data)
    )

    def gradient(params: Any, carry: Any, segment: Any) -> tuple[Any, Any]:
        symbols, targets = segment

        def total(params: Any) -> tuple[jax.Array, Any]:
            last, ys = unroll(CELLS[cell], params, carry, symbols)
            return jnp.sum(layer.loss_fn(params, ys, targets)), last

        (_, carry), grads = jax.value_and_grad(total, has_aux=True)(params)
        return grads, carry

    def update(state: Any, segment: Any) -> tuple[Any, None]:
        params, carry = state
        grads, carry = gradient(params, carry, segment)
        return (_sgd(params, grads, batch), carry), None

    def prepare() -> tuple[Any, Any]:
        params = jax.tree.map(jnp.copy, layer.params)
        return params, initial_carry(params, batch)

    @functools.partial(jax.jit, donate_argnums=0)
    def compiled(state: Any, segments: Any) -> Any:
        return jax.lax.scan(update, state, segments)[0]

    def run(state: Any) -> tuple[Any, Any]:
        return compiled(state, segments)[0], MEAN_LENGTH

    def frozen() -> tuple[Any, Any]:
        params, carry = prepare()
        total, segment_gradient = jax.tree.map(jnp.zeros_like, params), jax.jit(gradient)
        for index in range(num_steps // MEAN_LENGTH):
            segment = jax.tree.map(lambda x, index=index: x[index], segments)
            grads, carry = segment_gradient(params, carry, segment)
            total = jax.tree.map(jnp.add, total, grads)
        lengths = [MEAN_LENGTH] * (num_steps // MEAN_LENGTH)
        return total, gates_of(artbp.truncation.never(), lengths)

    return Walk(prepare, run, frozen)


def _sgd(params: Any, grads: Any, batch: int) -> Any:
    rate = _LEARNING_RATE / (MEAN_LENGTH * batch)
    return jax.tree.map(lambda p, g: p - rate * g, params, grads)


_update = jax.jit(_sgd, donate_argnums=0, static_argnums=2)
