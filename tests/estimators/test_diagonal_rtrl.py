"""RTRL of diagonal cells equals BPTT for one layer, and for the top layer of a stack."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from problems import SmallProblem, bptt_gradient, one_pass, relative_error

import artbp
from artbp import cells

pytestmark = pytest.mark.usefixtures("float64")

NUM_STEPS, ROWS, INPUTS, UNITS = 11, 3, 4, 5


def problem_of(cell, *, symbols=False):
    keys = jax.random.split(jax.random.key(1), 6)
    params = {
        "cell": cell.init(keys[0], INPUTS, UNITS, dtype=jnp.float64),
        "readout": jax.random.normal(keys[1], (UNITS,)),
    }
    shape = (NUM_STEPS, ROWS)
    stream = artbp.Stream(
        jax.random.randint(keys[2], shape, 0, INPUTS)
        if symbols
        else jax.random.normal(keys[2], (*shape, INPUTS)),
        jax.random.normal(keys[3], shape),
        resets=jax.random.bernoulli(keys[4], 0.2, shape),
        mask=jax.random.bernoulli(keys[5], 0.7, shape),
    )
    carry = jax.tree.map(lambda leaf: leaf + 0.3, cell.initial_carry(params["cell"], ROWS))
    return SmallProblem(
        cell.with_params(lambda params: params["cell"]),
        lambda params, y, target: (y @ params["readout"] - target) ** 2,
        params,
        carry,
        stream,
    )


@pytest.mark.parametrize("symbols", [False, True])
@pytest.mark.parametrize("name", ["lru", "elementwise_lstm"])
def test_it_is_bptt(name, symbols):
    problem = problem_of(getattr(cells, name), symbols=symbols)
    for update_every in (1, 4):
        estimator = artbp.diagonal_rtrl(problem.cell, problem.loss_fn, update_every=update_every)
        total, infos, state = one_pass(estimator, problem)
        assert relative_error(total, bptt_gradient(problem)) < 1e-12
        assert len(infos) == -(-NUM_STEPS // update_every)
        assert not any(np.any(leaf) for leaf in jax.tree.leaves(state.inner_state))


def test_a_stack_is_exact_in_its_top_layer_only():
    """The lower layer misses what it did to the states above; here most of its gradient."""
    problem = problem_of(cells.diagonal_stack([cells.lru, cells.elementwise_lstm]))
    total, _, _ = one_pass(artbp.diagonal_rtrl(problem.cell, problem.loss_fn), problem)
    expected = bptt_gradient(problem)
    (low, top), (exact_low, exact_top) = total["cell"], expected["cell"]
    assert relative_error((top, total["readout"]), (exact_top, expected["readout"])) < 1e-12
    assert 0.02 < relative_error(low, exact_low) < 1
    # Without anything from earlier steps, it would miss more.
    one_step = artbp.tbptt(problem.cell, problem.loss_fn, truncation_length=1)
    truncated, _, _ = one_pass(one_step, problem)
    assert relative_error(low, exact_low) < relative_error(truncated["cell"][0], exact_low)


@pytest.mark.parametrize("initial", ["lasting imag", "nonzero"])
@pytest.mark.parametrize("by_row", [False, True])
def test_resets(initial, by_row):
    """To a nonzero carry, and of one part of the carry alone: the gradient by the other crosses."""
    problem = problem_of(cells.lru)
    resets = problem.stream.resets if by_row else problem.stream.resets[:, 0]
    stream = dataclasses.replace(problem.stream, resets=resets, mask=None)
    problem = problem._replace(stream=stream)
    first = problem.carry._replace(real=problem.carry.real - 0.7)
    first = first._replace(imag=None) if initial == "lasting imag" else first
    found = []
    for make in (artbp.bptt, artbp.diagonal_rtrl):
        estimator = make(problem.cell, problem.loss_fn)
        key = jax.random.key(0)
        state = estimator.init(problem.params, problem.carry, rng_key=key, initial_carry=first)
        found.append(artbp.run_pass(estimator, problem.params, state, problem.stream)[0])
    assert relative_error(found[1], found[0]) < 1e-12


def test_layers_of_a_stack_may_select_their_params():
    top = cells.lru.with_params(lambda params: jax.tree.map(lambda leaf: 0.5 * leaf, params))
    problem = problem_of(cells.diagonal_stack([cells.lru, top]))
    total, _, _ = one_pass(artbp.diagonal_rtrl(problem.cell, problem.loss_fn), problem)
    assert relative_error(total["cell"][1], bptt_gradient(problem)["cell"][1]) < 1e-12


@pytest.mark.parametrize("name", ["lru", "elementwise_lstm"])
def test_weights_in_bfloat16(name):
    """With a carry in float32, the gradient is that of float32 weights up to their rounding."""
    cell = getattr(cells, name)
    problem = jax.tree.map(
        lambda leaf: leaf.astype(jnp.float32) if leaf.dtype == jnp.float64 else leaf,
        problem_of(cell)[2:],
    )
    params, carry, stream = problem
    found = []
    for dtype in (jnp.float32, jnp.bfloat16):
        cast = lambda params, dtype=dtype: optax.tree.cast(params["cell"], dtype)  # noqa: E731
        narrow = cell.with_params(cast)
        estimator = artbp.diagonal_rtrl(
            narrow, lambda params, y, target: (y @ params["readout"] - target) ** 2
        )
        state = estimator.init(params, carry, rng_key=jax.random.key(0))
        found.append(artbp.run_pass(estimator, params, state, stream)[0]["cell"]["units"])
    assert 1e-4 < relative_error(found[1], found[0]) < 0.1


def test_its_state_is_linear_in_the_units():
    """One number for each parameter that acts on a unit, for each leaf of the carry and row."""

    def entries(units):
        params = cells.lru.init(jax.random.key(0), INPUTS, units)
        estimator = artbp.diagonal_rtrl(cells.lru, lambda params, y, target: y[..., 0])
        carry = cells.lru.initial_carry(params, ROWS)
        state = estimator.init(params, carry, rng_key=jax.random.key(0))
        return sum(leaf.size for leaf in jax.tree.leaves(state.inner_state))

    per_unit = 2 * ROWS * (3 + 2 * INPUTS + 2)  # the last two: of a bias
    assert [entries(n) for n in (4, 8)] == [4 * per_unit, 8 * per_unit]


def test_other_cells_are_refused():
    with pytest.raises(TypeError, match=r"expected a cell of artbp\.cells\.diagonal_cell.*rtrl"):
        artbp.diagonal_rtrl(cells.gru, lambda params, y, target: y)
