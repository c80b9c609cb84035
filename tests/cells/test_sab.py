"""Sparse Attentive Backtracking: the cell against a slow loop over lists, and its gradients."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from problems import SmallProblem, one_pass, relative_error

import artbp
from artbp import cells, truncation

pytestmark = pytest.mark.usefixtures("float64")

NUM_STEPS, ROWS, INPUTS, UNITS = 11, 2, 3, 4
SIZES = {"memory_size": 4, "truncation_length": 3, "store_every": 2, "top_k": 3}


def make_problem(*, num_steps=NUM_STEPS, **sizes):
    """Scores with weights of size 1, so that the gradient through the weights α is not small."""
    cell = cells.sab(**{**SIZES, **sizes})
    keys = jax.random.split(jax.random.key(0), 6)
    params = cell.init(keys[0], INPUTS, UNITS, dtype=jnp.float64)
    params |= {name: jax.random.normal(keys[i], (UNITS,)) for i, name in [(1, "query"), (2, "key")]}
    params = {"cell": params, "readout": jax.random.normal(keys[3], (2 * UNITS,))}
    xs = jax.random.normal(keys[4], (num_steps, ROWS, INPUTS))
    targets = jax.random.normal(keys[5], (num_steps, ROWS))
    return SmallProblem(
        cell.with_params(lambda params: params["cell"]),
        lambda params, y, target: (y @ params["readout"] - target) ** 2,
        params,
        cell.initial_carry(params["cell"], ROWS),
        artbp.Stream(xs, targets),
    )


def ys_of(problem, params, xs, **options):
    return artbp.unroll(problem.cell, params, problem.carry, xs, **options)[1]


def slow_ys(params, xs, memory_size, truncation_length, store_every, top_k):
    """One row: Python lists in place of the ring and its masks."""
    c = h = jnp.zeros(UNITS)
    stored, ys = [], []
    for t, x in enumerate(xs, start=1):
        z = x @ params["input"] + h @ params["recurrent"] + params["bias"]
        i, f, g, o = jnp.split(z, 4)
        c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
        h = jax.nn.sigmoid(o) * jnp.tanh(c)
        scores = [
            jnp.concatenate([params["query"], params["key"]]) @ jnp.tanh(jnp.concatenate([h, m]))
            for m in stored
        ]
        if len(stored) > top_k:
            threshold = jnp.sort(jnp.stack(scores))[-top_k]
            scores = [jnp.maximum(score - threshold, 0) for score in scores]
            total = sum(scores) + 1e-7
            scores = [score / total for score in scores]
        s = sum((score * m for score, m in zip(scores, stored, strict=True)), jnp.zeros(UNITS))
        h = h + s
        ys.append(jnp.concatenate([h, s]))
        if t % store_every == 0:
            stored = [*stored, h][-memory_size:]
        if t % truncation_length == 0:
            c, h = jax.lax.stop_gradient((c, h))
    return jnp.stack(ys)


def test_values_and_gradients_of_a_loop_over_lists():
    """Scores are weights up to step 8, then two of four are positive; step 10 replaces a state."""
    problem = make_problem()
    cotangent = jax.random.normal(jax.random.key(9), (NUM_STEPS, ROWS, 2 * UNITS))

    def slow(params, xs):
        row = functools.partial(slow_ys, params["cell"], **SIZES)
        return jax.vmap(row, in_axes=1, out_axes=1)(xs)

    def values_and_gradients(function):
        ys, pullback = jax.vjp(function, problem.params, problem.stream.xs)
        return ys, pullback(cotangent)

    ys, gradients = values_and_gradients(functools.partial(ys_of, problem))
    expected, slow_gradients = jax.jit(lambda: values_and_gradients(slow))()
    np.testing.assert_allclose(ys, expected, rtol=1e-10, atol=1e-12)
    assert relative_error(gradients, slow_gradients) < 1e-10


@pytest.mark.parametrize("store_every", [2, 99])
def test_credit_reaches_far_through_what_is_read(store_every):
    """The last y against each input; without stored states, back to the last boundary only."""
    problem = make_problem(memory_size=9, store_every=store_every, top_k=8)
    last = lambda xs: jnp.sum(ys_of(problem, problem.params, xs)[-1])  # noqa: E731
    sizes = jnp.max(jnp.abs(jax.grad(last)(problem.stream.xs)), axis=(1, 2))
    # Steps 1, …, 11; states 2, 4, …, 10 are stored; boundaries after 3, 6 and 9. Step 3 leads to no
    # stored state within its segment, and the others do.
    reached = [1, 2, 4, 5, 6, 7, 8, 10, 11] if store_every == 2 else [10, 11]
    np.testing.assert_array_equal(np.flatnonzero(sizes) + 1, reached)


def test_resets_of_a_row_begin_a_new_sequence():
    problem = make_problem()
    begins = [0, 5]  # of the second row; the first one is not reset
    resets = np.zeros((NUM_STEPS, ROWS), bool)
    resets[begins, 1] = True
    ys, plain = (
        ys_of(problem, problem.params, problem.stream.xs, resets=flags) for flags in (resets, None)
    )
    parts = [ys_of(problem, problem.params, part) for part in jnp.split(problem.stream.xs, [5])]
    np.testing.assert_allclose(ys[:, 0], plain[:, 0], rtol=1e-12)
    np.testing.assert_allclose(ys[:, 1], jnp.concatenate(parts)[:, 1], rtol=1e-12)
    assert np.abs(ys[5:, 1] - plain[5:, 1]).max() > 1e-3


@pytest.mark.parametrize("name", ["artbp", "bptt", "rtrl", "tbptt"])
def test_estimators_have_the_boundaries_of_the_cell(name):
    problem = make_problem(num_steps=7, store_every=1)
    resets = np.zeros((7, ROWS), bool)
    resets[5, 0] = True
    stream = dataclasses.replace(problem.stream, resets=resets)
    problem = problem._replace(stream=stream)
    options = {
        "artbp": {"law": truncation.never()},
        "tbptt": {"truncation_length": 7},
    }.get(name, {})
    estimator = getattr(artbp, name)(problem.cell, problem.loss_fn, **options)
    total, _, _ = one_pass(estimator, problem)

    def loss(params):
        ys = ys_of(problem, params, stream.xs, resets=stream.resets)
        return jnp.sum(problem.loss_fn(params, ys, stream.targets))

    assert relative_error(total, jax.grad(loss)(problem.params)) < 1e-10


def test_narrow_dtypes_are_kept():
    def step(x):
        params = cells.sab(12).init(jax.random.key(0), 5, 3, dtype=jnp.bfloat16)
        carry = cells.sab(12).initial_carry(params, 2)
        return carry, *cells.sab(12)(params, carry, x)

    carry, new, y = jax.eval_shape(step, jnp.array([1, 2]))
    assert new == carry
    assert (y.dtype, y.shape) == (jnp.bfloat16, (2, 6))


def test_the_ring_holds_more_states_than_are_read():
    with pytest.raises(ValueError, match=r"memory_size=10.*11"):
        cells.sab(10)
    with pytest.raises(ValueError, match=r"top_k=1.*2"):
        cells.sab(10, top_k=1)
