"""RTRL equals BPTT, UORO does on average over all signs, and SnAp-1 follows its recursion."""

import itertools
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from problems import (
    CELLS,
    SmallProblem,
    bptt_gradient,
    make_problem,
    one_pass,
    relative_error,
    run_python,
)

import artbp
from artbp import cells

pytestmark = pytest.mark.usefixtures("float64")


@pytest.mark.parametrize("update_every", [1, 4])
@pytest.mark.parametrize("name", CELLS)
def test_rtrl_is_bptt(name, update_every):
    problem = make_problem(name, 9, resets=True, mask=True)
    estimator = artbp.rtrl(problem.cell, problem.loss_fn, update_every=update_every)
    total, infos, state = one_pass(estimator, problem)
    assert relative_error(total, bptt_gradient(problem)) < 1e-12
    assert len(infos) == -(-9 // update_every)
    assert not np.any(state.inner_state)  # the influence is zero when the next pass begins


def test_rtrl_with_fewer_parameters_than_states():
    """J is then updated in forward mode."""
    problem = make_problem("rnn", 9, resets=True)
    direction = jax.tree.map(jnp.ones_like, problem.params)

    def params_at(own):
        return jax.tree.map(lambda p, d: p + own["scale"] * d, problem.params, direction)

    few = problem._replace(
        cell=lambda own, carry, x: problem.cell(params_at(own), carry, x),
        loss_fn=lambda own, y, target: problem.loss_fn(params_at(own), y, target),
        params={"scale": jnp.asarray(0.1)},
    )
    total, _, state = one_pass(artbp.rtrl(few.cell, few.loss_fn), few)
    assert state.inner_state.shape == (1, 2, 4)  # [P, B, H]
    assert relative_error(total, bptt_gradient(few)) < 1e-12


@pytest.mark.parametrize("make", [artbp.rtrl, artbp.snap1])
def test_a_carry_without_floats_has_no_influence(make):
    def cell(params, count, x):
        return count + 1, params * x * count.astype(jnp.float32)

    estimator = make(cell, lambda params, y, target: y)
    params, stream = jnp.float32(2.0), artbp.Stream(np.ones(4, np.float32))
    problem = SmallProblem(cell, lambda params, y, target: y, params, jnp.int32(0), stream)
    assert one_pass(estimator, problem)[0] == 0 + 1 + 2 + 3


def test_rtrl_mixes_weights_of_different_times_under_updates():
    """The control: with updates during the pass the sum differs from BPTT."""
    problem = make_problem("rnn", 9)

    def update(params, grads):
        return jax.tree.map(lambda p, g: p - 0.05 * g, params, grads)

    total, _, _ = one_pass(artbp.rtrl(problem.cell, problem.loss_fn), problem, update=update)
    assert relative_error(total, bptt_gradient(problem)) > 1e-3


def diagonal_problem():
    """Makes an RNN whose units depend only on themselves: elementwise recurrent weights."""
    problem = make_problem("rnn", 9, resets=True)
    weights = {**problem.params["cell"], "recurrent": jnp.array([0.9, -0.7, 0.5, 1.1])}

    def cell(params, carry, x):
        own = params["cell"]
        carry = jnp.tanh(carry * own["recurrent"][None] + x @ own["input"] + own["bias"][None])
        return carry, carry

    return problem._replace(cell=cell, params={**problem.params, "cell": weights})


def test_snap1_is_rtrl_where_the_recurrence_is_diagonal():
    problem = diagonal_problem()
    total, _, _ = one_pass(artbp.snap1(problem.cell, problem.loss_fn), problem)
    assert relative_error(total, bptt_gradient(problem)) < 1e-12


@pytest.mark.parametrize("name", CELLS)
def test_snap1_is_biased_for_full_recurrences(name):
    problem = make_problem(name, 9)
    total, _, _ = one_pass(artbp.snap1(problem.cell, problem.loss_fn), problem)
    assert relative_error(total, bptt_gradient(problem)) > 1e-3


def test_snap1_tracks_the_influence_of_a_weight_on_its_own_unit():
    """The recursion for an RNN is written out: J_ij of U_ij depends on unit j only."""
    params = cells.rnn.init(jax.random.key(0), 2, 3, dtype=jnp.float64)
    recurrent = params["recurrent"]
    xs = jax.random.normal(jax.random.key(1), (6, 1, 2))
    target = jax.random.normal(jax.random.key(2), (6, 1))

    def loss_fn(params, y, target):
        return 0.5 * (jnp.sum(y, axis=-1) - target) ** 2

    hidden, influence, expected = jnp.zeros(3), np.zeros((3, 3)), np.zeros((3, 3))
    for t in range(6):
        new = jnp.tanh(hidden @ recurrent + xs[t, 0] @ params["input"] + params["bias"])
        slope, error = 1 - new**2, jnp.sum(new) - target[t, 0]
        direct = hidden[:, None] * slope[None]  # ∂F_j/∂U_ij
        cotangent = recurrent @ (slope * error)  # ∂ℓ_t/∂h_{t−1}, from every unit
        expected = expected + error * direct + cotangent[None] * influence
        # J[i, j] = ∂h_j/∂U_ij; influence through other units is dropped.
        influence = direct + slope[None] * jnp.diag(recurrent)[None] * influence
        hidden = new

    stream = artbp.Stream(xs, target)
    estimator = artbp.snap1(cells.rnn, loss_fn, update_every=6)
    state = estimator.init(params, jnp.zeros((1, 3)), rng_key=jax.random.key(0))
    grads, _, _ = estimator.estimate(params, state, stream)
    np.testing.assert_allclose(grads["recurrent"], expected, rtol=1e-12)


def uoro_over_all_signs(problem, num_steps, balance=True):
    """Returns the mean gradient of UORO over all signs, and the gradient of each draw."""
    size = problem.carry.size
    # The signs of the last step do not affect the gradient.
    table = np.array(list(itertools.product([-1.0, 1.0], repeat=size * (num_steps - 1))))
    table = table.reshape(-1, num_steps - 1, *problem.carry.shape)
    table = np.concatenate([table, np.ones_like(table[:, :1])], axis=1)

    def of_draw(signs):
        estimator = artbp.uoro(
            problem.cell,
            problem.loss_fn,
            update_every=num_steps,
            draw_signs=lambda rng_key, t, like: signs[t] if balance else 2 * signs[t],
        )
        state = estimator.init(problem.params, problem.carry, rng_key=jax.random.key(0))
        return estimator.estimate(problem.params, state, problem.stream)[0]

    gradients = jax.jit(jax.vmap(of_draw))(jnp.asarray(table))
    return jax.tree.map(lambda leaf: leaf.mean(0), gradients), gradients


def test_uoro_is_unbiased_over_all_signs():
    """Two units, one row and five steps give 2⁸ equally likely draws."""
    problem = two_unit_problem(5)
    mean, gradients = uoro_over_all_signs(problem, 5)
    expected = bptt_gradient(problem)
    assert relative_error(mean, expected) < 1e-12
    # Controls: a single draw differs, and signs of the wrong size give a bias.
    assert relative_error(jax.tree.map(lambda leaf: leaf[0], gradients), expected) > 0.1
    wrong, _ = uoro_over_all_signs(problem, 5, balance=False)
    assert relative_error(wrong, expected) > 0.1


def two_unit_problem(num_steps):
    problem = make_problem("rnn", num_steps, batch=1)
    keys = jax.random.split(jax.random.key(4), 2)
    params = {
        "cell": cells.rnn.init(keys[0], 3, 2, dtype=jnp.float64),
        "readout": jax.random.normal(keys[1], (2,)),
    }
    return problem._replace(params=params, carry=jnp.full((1, 2), 0.3))


def test_uoro_draws_new_signs_at_each_step_and_estimate():
    seen = []

    def draw_signs(rng_key, t, like):
        jax.debug.callback(lambda data: seen.append(bytes(data)), jax.random.key_data(rng_key))
        return jax.tree.map(jnp.ones_like, like)

    problem = make_problem("rnn", 7)
    estimator = artbp.uoro(problem.cell, problem.loss_fn, update_every=2, draw_signs=draw_signs)
    state = estimator.init(problem.params, problem.carry, rng_key=jax.random.key(0))
    for _ in range(8):  # two passes of four estimates
        _, state, _ = estimator.estimate(problem.params, state, problem.stream)
    jax.effects_barrier()
    assert len(set(seen)) == 14


@jax.custom_vjp
def square(x):
    return x**2


square.defvjp(lambda x: (x**2, x), lambda x, cotangent: (2 * x * cotangent,))


def halved(x):
    return jax.lax.while_loop(lambda x: jnp.max(x) > 0.5, lambda x: x / 2, x)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (
            square,
            "forward mode .*jax.custom_vjp.*bptt, tbptt, .*unbiased_tbptt.*gpes and nres need no",
        ),
        (halved, "reverse mode .*while_loop.*no derivative are truncated_es, pes, gpes and nres"),
    ],
    ids=["forward", "reverse"],
)
@pytest.mark.parametrize("make", [artbp.rtrl, artbp.snap1, artbp.uoro])
def test_cells_that_cannot_be_differentiated(make, function, message):
    problem = make_problem("rnn", 3)

    def cell(params, carry, x):
        carry, _ = problem.cell(params, function(carry), x)
        return carry, carry

    estimator = make(cell, problem.loss_fn)
    state = estimator.init(problem.params, problem.carry, rng_key=jax.random.key(0))
    with pytest.raises(TypeError, match=message):
        jax.eval_shape(estimator.estimate, problem.params, state, problem.stream)


def test_a_loss_needs_reverse_mode_only():
    problem = make_problem("rnn", 3)

    def loss_fn(params, y, target):
        return square(y @ params["readout"] - target)

    estimator = artbp.uoro(problem.cell, loss_fn)
    state = estimator.init(problem.params, problem.carry, rng_key=jax.random.key(0))
    jax.eval_shape(estimator.estimate, problem.params, state, problem.stream)


def test_rows_split_over_an_explicit_mesh():
    """Eight virtual devices give the gradients of one."""
    run_python(
        """
        import jax
        from jax.sharding import AxisType, NamedSharding, PartitionSpec
        import artbp
        from problems import make_problem, one_pass, relative_error

        mesh = jax.make_mesh((8,), ("rows",), axis_types=(AxisType.Explicit,))

        def shard(tree, *spec):
            return jax.device_put(tree, NamedSharding(mesh, PartitionSpec(*spec)))

        problem = make_problem("rnn", 4, batch=16, resets=True)
        for make in (artbp.rtrl, artbp.snap1, artbp.uoro):
            estimator = make(problem.cell, problem.loss_fn, update_every=4)
            expected, _, _ = one_pass(estimator, problem)
            with jax.set_mesh(mesh):
                split = problem._replace(
                    params=shard(problem.params),
                    carry=shard(problem.carry, "rows"),
                    stream=shard(problem.stream, None, "rows"),
                )
                found, _, _ = one_pass(estimator, split)
            assert relative_error(found, expected) < 1e-5, make
        """,
        XLA_FLAGS=f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8",
    )


@pytest.mark.parametrize("make", [artbp.rtrl, artbp.snap1, artbp.uoro])
def test_bad_options(make):
    problem = make_problem()
    with pytest.raises(ValueError, match="update_every=0"):
        make(problem.cell, problem.loss_fn, update_every=0)
