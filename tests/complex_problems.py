"""A problem with complex carries and parameters, and the same problem in real numbers.

The cell is not holomorphic, so a derivative has two directions for each complex number.
"""

import jax
import jax.numpy as jnp
from problems import SmallProblem

import artbp


def normal(seed, *shape):
    real, imag = jax.random.normal(jax.random.key(seed), (2, *shape))
    return jax.lax.complex(real, imag)


def make_complex_problem(num_steps=30, batch=2):
    """A complex and a real leaf in the carry, complex and real parameters."""

    def cell(params, carry, x):
        z = carry["z"]
        damped = z / (1 + jnp.abs(z)).astype(complex)
        driven = x.astype(complex) @ params["input"]
        z = damped @ params["recurrent"] - 0.3j * jnp.conj(z) + driven
        h = jnp.tanh(params["mix"] * carry["h"] + z.imag)
        return {"h": h, "z": z}, z.real * h + jnp.abs(z) ** 2

    def loss_fn(params, y, target):
        return jnp.sum((y - target) ** 2, axis=-1)

    params = {
        "input": normal(1, 1, 2),
        "mix": jnp.array([[0.5, -0.4]]),
        "recurrent": normal(2, 2, 2),
    }
    params["recurrent"] *= 0.6
    carry = {"h": jnp.full((batch, 2), 0.3), "z": normal(3, batch, 2)}
    xs = jax.random.normal(jax.random.key(4), (num_steps, batch, 1))
    return SmallProblem(
        cell, loss_fn, params, carry, artbp.Stream(xs, jnp.zeros((num_steps, batch, 1)))
    )


def split(tree):
    return jax.tree.map(lambda x: (x.real, x.imag) if jnp.iscomplexobj(x) else x, tree)


def join(tree, sign=1):
    return jax.tree.map(
        lambda x: jax.lax.complex(x[0], sign * x[1]) if isinstance(x, tuple) else x,
        tree,
        is_leaf=lambda x: isinstance(x, tuple),
    )


def in_real_numbers(problem):
    """The problem whose carry and params hold real and imaginary parts."""

    def cell(params, carry, x):
        carry, y = problem.cell(join(params), join(carry), x)
        return split(carry), y

    return problem._replace(cell=cell, params=split(problem.params), carry=split(problem.carry))
