"""A user's cell that brings its own recurrence, against the same cell as a plain function."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from problems import SmallProblem, one_pass

import artbp
from artbp import truncation

pytestmark = pytest.mark.usefixtures("float64")

NUM_STEPS, BATCH, SIZE = 23, 2, 3


def leaky(params, carry, x):
    """s' = rate · s + x, y = s'."""
    carry = params["rate"] * carry + x
    return carry, carry


class Leaky:
    """`leaky` with a recurrence of its own. `fault` scales its gradient."""

    def __init__(self, fault=1.0):
        self.fault = fault

    def __call__(self, params, carry, x):
        return leaky(params, carry, x)

    def recurrence(self, params):
        return LeakyRecurrence(params, self.fault)


class LeakyRecurrence:
    def __init__(self, params, fault):
        self.params, self.rate, self.fault = params, params["rate"], fault

    def project(self, xs):
        return xs

    def step(self, carry, u):
        new_carry = self.rate * carry + u
        return new_carry, new_carry, carry

    def residuals_like(self, carry):
        return carry

    def linearize(self, chunk):
        return self.rate * chunk.residuals + chunk.xs, chunk.residuals

    def pull_back(self, local, cotangent, y_cotangent):
        delta = cotangent + y_cotangent
        return delta, self.rate * delta

    def zero_sums(self):
        return jnp.zeros_like(self.rate)

    def accumulate(self, sums, local, xs, deltas):
        return sums + self.fault * jnp.sum(local * deltas)

    def gradient(self, sums):
        return {**jax.tree.map(jnp.zeros_like, self.params), "rate": sums}

    def input_gradient(self, local, xs, deltas):
        return deltas


def loss_fn(params, y, target):
    return jnp.sum((params["scale"] * y - target) ** 2, axis=-1)


def inputs():
    keys = jax.random.split(jax.random.key(0), 2)
    params = {"rate": jnp.array(0.9), "scale": jnp.array(1.5)}
    xs, targets = (jax.random.normal(key, (NUM_STEPS, BATCH, SIZE)) for key in keys)
    resets = jnp.arange(NUM_STEPS) % 7 == 3
    return params, jnp.ones((BATCH, SIZE)), artbp.Stream(xs, targets, resets=resets)


def summed(cell, policy):
    """The gradient over one pass of the stream with frozen params."""
    problem = SmallProblem(cell, loss_fn, *inputs())
    law = truncation.polynomial(4, 4)
    return one_pass(artbp.artbp(cell, loss_fn, law, policy=policy, block_size=4), problem)[0]


def difference(tree, other):
    pairs = zip(jax.tree.leaves(tree), jax.tree.leaves(other), strict=True)
    return max(float(np.max(np.abs(a - b) / np.abs(b))) for a, b in pairs)


@pytest.mark.parametrize("policy", ["dynamic", "pow2", "exact"])
def test_a_recurrence_of_the_users_own_is_run(policy):
    expected = summed(leaky, policy)
    assert difference(summed(Leaky(), policy), expected) < 1e-12
    assert difference(summed(Leaky(fault=1.01), policy), expected) > 1e-3  # it was not bypassed


def test_fused_unroll_runs_it_too():
    params, carry, stream = inputs()

    def gradients(unroll, cell):
        def total(params, xs):
            _, ys = unroll(cell, params, carry, xs, resets=stream.resets)
            return jnp.sum(loss_fn(params, ys, stream.targets))

        return jax.jit(jax.grad(total, argnums=(0, 1)))(params, stream.xs)

    expected = gradients(artbp.unroll, leaky)
    assert difference(gradients(artbp.fused_unroll, Leaky()), expected) < 1e-12
    assert difference(gradients(artbp.fused_unroll, Leaky(1.01))[0], expected[0]) > 1e-3
