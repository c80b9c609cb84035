"""Products over merged axes against the same products as they were written."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from artbp.unrolls.contraction import merge_contracted_axes

pytestmark = pytest.mark.usefixtures("float64")


def normal(number, *shape):
    return jax.random.normal(jax.random.key(number), shape)


def weight_gradient(cell):
    """Of a cell that is mapped over steps, as `Linearized` takes it."""

    def gradient(weights, carries, deltas):
        return jax.vjp(lambda w: jax.vmap(cell, (None, 0))(w, carries), weights)[1](deltas)[0]

    return gradient, (normal(0, 5, 7), normal(1, 4, 3, 5), normal(2, 4, 3, 7))


def contractions(function, *arguments):
    """How many axes each product of a program sums over, and the rank of its operands."""
    jaxpr = jax.make_jaxpr(function)(*arguments)
    products = [eqn for eqn in jaxpr.jaxpr.eqns if eqn.primitive.name == "dot_general"]
    return [
        (len(eqn.params["dimension_numbers"][0][0]), eqn.invars[0].aval.ndim) for eqn in products
    ]


def test_the_gradient_of_weights_becomes_a_product_of_matrices():
    gradient, arguments = weight_gradient(lambda w, h: h @ w)
    assert (2, 3) in contractions(gradient, *arguments)
    merged = merge_contracted_axes(gradient)
    assert (1, 2) in contractions(merged, *arguments)
    assert (2, 3) not in contractions(merged, *arguments)
    np.testing.assert_allclose(merged(*arguments), gradient(*arguments), rtol=1e-13)


@pytest.mark.parametrize(
    ("equation", "shapes"),
    [
        ("abm,abn->mn", [(4, 3, 5), (4, 3, 7)]),
        ("abm,ban->mn", [(4, 3, 5), (3, 4, 7)]),  # summed in different orders
        ("mab,abn->mn", [(5, 4, 3), (4, 3, 7)]),  # not leading on the left
        ("abm,abn->amn", [(4, 3, 5), (4, 3, 7)]),  # a batch axis
        ("ab,ab->", [(4, 3), (4, 3)]),
        ("abc,abc->", [(4, 3, 2), (4, 3, 2)]),
        ("am,an->mn", [(4, 5), (4, 7)]),
        ("m,n->mn", [(5,), (7,)]),
    ],
)
def test_every_product_keeps_its_value(equation, shapes):
    arguments = [normal(i, *shape) for i, shape in enumerate(shapes)]

    def product(*operands):
        return jnp.einsum(equation, *operands)

    result = merge_contracted_axes(product)(*arguments)
    np.testing.assert_allclose(result, product(*arguments), rtol=1e-13)


def test_a_program_keeps_its_structure_literals_and_inner_programs():
    def function(x, unused):
        inner = jax.jit(lambda y: jnp.einsum("abm,abn->mn", y, y))
        top, index = jax.lax.top_k(x[0, 0], 2)
        looped = jax.lax.fori_loop(0, 3, lambda _, s: jnp.tanh(s) + 1, x)
        return {"sum": (inner(x) + 2.0).sum(), "top": (top, index)}, looped, 3, x

    x, unused = normal(0, 4, 3, 5), normal(1, 2)
    got = merge_contracted_axes(function)(x, unused)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-13), got, function(x, unused)
    )
