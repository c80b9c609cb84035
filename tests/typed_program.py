"""A user's program for the type checker, against the installed wheel; it is never run.

Lines marked `pyrefly: ignore` are mistakes that the types must show: the checker complains about
the comment if it finds nothing there, that is, if a public name has lost its types.
"""

from typing import Any, assert_type

import jax
import jax.numpy as jnp
from flax import nnx

import artbp


def cell(params: Any, carry: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    carry = jnp.tanh(carry @ params + x)
    return carry, carry


def loss_fn(params: Any, y: jax.Array, target: jax.Array) -> jax.Array:
    return jnp.mean((y - target) ** 2, axis=-1)


params, carry, key = jnp.eye(4), jnp.zeros((2, 4)), jax.random.key(0)
xs = jnp.ones((20, 2, 4))
stream = artbp.Stream(xs, targets=xs)

law = artbp.truncation.polynomial(16, 4)
assert_type(law.sample_gates(key, 20), jax.Array)
estimator = artbp.artbp(cell, loss_fn, law, normalizer=32)
assert_type(estimator, artbp.GradientEstimator)
state = estimator.init(params, carry, rng_key=key)
assert_type(state, artbp.EstimatorState)
grads, state, info = estimator.estimate(params, state, stream)
assert_type(info, artbp.EstimatorInfo)
assert_type(info.loss_sum, jax.Array)
assert_type(artbp.evaluate(cell, loss_fn, params, carry, stream), artbp.Evaluation)
carry, ys = artbp.unroll(cell, params, carry, xs, gates=law.sample_gates(key, 20))
model = artbp.adapters.nnx.adapt(nnx.GRUCell(4, 4, rngs=nnx.Rngs(0)), carry)
assert_type(model, artbp.adapters.AdaptedModule)
artbp.tbptt(artbp.adapters.stack([model, model]).cell, loss_fn, truncation_length=8)

artbp.tbptt(cell, loss_fn, truncation_length="8")  # pyrefly: ignore[bad-argument-type]
artbp.artbp(cell, loss_fn, 16)  # pyrefly: ignore[bad-argument-type]
artbp.artbp(cell, loss_fn, law, policy="fast")  # pyrefly: ignore[bad-argument-type]
artbp.artbp(cell, loss_fn, law, truncation_length=8)  # pyrefly: ignore[unexpected-keyword]
artbp.unroll(cell, params, carry)  # pyrefly: ignore[missing-argument]
print(info.losses)  # pyrefly: ignore[missing-attribute]
print(artbp.unbiased)  # pyrefly: ignore[missing-attribute]
