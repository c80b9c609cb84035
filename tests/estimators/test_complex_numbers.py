"""Estimators on complex carries and parameters: each agrees with the same problem in real numbers.

The cell is not holomorphic, so a derivative has two directions for each complex number.
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from complex_problems import in_real_numbers, join, make_complex_problem
from problems import one_pass, relative_error, summed_loss

import artbp

pytestmark = pytest.mark.usefixtures("float64")


def bptt_gradient(problem):
    """The gradient of the problem in real numbers, by `jax.grad` of an unroll."""
    twin = in_real_numbers(problem)
    return join(jax.jit(jax.grad(lambda params: summed_loss(twin, params)))(twin.params), -1)


@pytest.fixture(scope="module")
def gradient():
    with jax.enable_x64(True):
        return bptt_gradient(make_complex_problem())


@pytest.mark.parametrize("name", [name for name in artbp.REGISTRY if artbp.REGISTRY[name].exact])
def test_exact_rows(name, gradient):
    problem = make_complex_problem()
    total, _, _ = one_pass(artbp.REGISTRY[name].build(problem.cell, problem.loss_fn, 3), problem)
    assert relative_error(total, gradient) < 1e-11


# Each of these runs the code of the row beside it; all passed when this was written.
SAME_CODE = {
    "tbptt": "artbp_polynomial_4",
    "tbptt_drawn_offset": "artbp_polynomial_4",
    "awd_lstm_bptt": "artbp_polynomial_4",
    "uncompensated_polynomial_4": "artbp_polynomial_4",
    "artbp_polynomial_6": "artbp_polynomial_4",
    "artbp_geometric": "artbp_polynomial_4",
    "random_truncation": "artbp_polynomial_4",
    "tbptt_stored": "tbptt_past_weights",
    "tbptt_reforward": "tbptt_past_weights",
    "tbptt_window_losses": "tbptt_past_weights",
    "truncated_es": "pes",
    "gpes": "nres",
}
TESTED_BELOW = {"snap1", "uoro"}
OTHERS = [
    name
    for name, row in artbp.REGISTRY.items()
    if not row.exact and name not in SAME_CODE and name not in TESTED_BELOW
]


@pytest.mark.parametrize("name", OTHERS)
def test_the_same_estimate_as_in_real_numbers(name):
    """Equal with equal random draws, so with equal expectations."""
    problem, row = make_complex_problem(), artbp.REGISTRY[name]
    if row.black_box:  # these refuse complex params
        cell, constants = problem.cell, problem.params
        problem = problem._replace(
            cell=lambda params, carry, x: cell(constants | params, carry, x),
            params={"mix": constants["mix"]},
        )
    twin = in_real_numbers(problem)
    total, expected = (one_pass(row.build(p.cell, p.loss_fn, 3), p)[0] for p in (problem, twin))
    assert relative_error(total, join(expected, -1)) < 1e-11


def diagonal_problem():
    """Each complex unit depends on itself only, through both of its parts."""
    problem = make_complex_problem(num_steps=9)

    def cell(params, carry, x):
        decay = jnp.exp(jax.lax.complex(-jnp.exp(params["nu"]), params["theta"]))
        z = decay * carry + 0.2 * jnp.conj(carry) + x.astype(complex) @ params["input"]
        return z, z.real * z.imag

    params = {
        "nu": jnp.array([[-1.0, -2.0]]),
        "theta": jnp.array([[0.5, 2.0]]),
        "input": problem.params["input"],
    }
    return problem._replace(cell=cell, params=params, carry=problem.carry["z"])


def test_snap1_is_rtrl_for_a_complex_diagonal_recurrence():
    problem = diagonal_problem()
    expected = bptt_gradient(problem)
    total, _, _ = one_pass(artbp.snap1(problem.cell, problem.loss_fn, update_every=5), problem)
    assert relative_error(total, expected) < 1e-12
    twin = in_real_numbers(problem)  # the control: two units, each depending on the other
    total, _, _ = one_pass(artbp.snap1(twin.cell, twin.loss_fn, update_every=5), twin)
    assert relative_error(join(total, -1), expected) > 1e-3


def test_rtrl_with_fewer_parameters_than_states():
    """J is then updated in forward mode."""
    problem = diagonal_problem()
    few = problem._replace(
        cell=lambda params, carry, x: problem.cell(problem.params | params, carry, x),
        params={"input": problem.params["input"]},
    )
    total, _, state = one_pass(artbp.rtrl(few.cell, few.loss_fn), few)
    assert state.inner_state.real.shape == state.inner_state.imag.shape == (4, 2, 2)  # [P, B, H]
    assert relative_error(total, bptt_gradient(few)) < 1e-12


def test_uoro_is_unbiased_over_all_signs():
    """One unit, one row and four steps give 2⁶ equally likely draws: two signs at each step."""
    problem = diagonal_problem()
    params = jax.tree.map(lambda leaf: leaf[:, :1], problem.params)
    xs = problem.stream.xs[:4, :1]
    problem = problem._replace(
        params=params, carry=problem.carry[:1, :1], stream=artbp.Stream(xs, jnp.zeros((4, 1, 1)))
    )
    # The signs of the last step do not affect the gradient.
    table = np.array([(*signs, 1, 1) for signs in itertools.product([-1.0, 1.0], repeat=6)])

    def of_draw(signs):
        def draw_signs(rng_key, t, like):
            real, imag = signs[t]
            return type(like)(jnp.full_like(like.real, real), jnp.full_like(like.imag, imag))

        estimator = artbp.uoro(problem.cell, problem.loss_fn, update_every=4, draw_signs=draw_signs)
        state = estimator.init(problem.params, problem.carry, rng_key=jax.random.key(0))
        return estimator.estimate(problem.params, state, problem.stream)[0]

    gradients = jax.jit(jax.vmap(of_draw))(jnp.asarray(table.reshape(-1, 4, 2)))
    expected = bptt_gradient(problem)
    assert relative_error(jax.tree.map(lambda leaf: leaf.mean(0), gradients), expected) < 1e-12
    assert relative_error(jax.tree.map(lambda leaf: leaf[0], gradients), expected) > 0.1
