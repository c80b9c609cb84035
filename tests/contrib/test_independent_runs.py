"""Independent rows against the loop that they stand for, row by row."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from problems import make_problem, relative_error

import artbp
from artbp import contrib, truncation

pytestmark = pytest.mark.usefixtures("float64")

LAW = truncation.polynomial(5, 4)
NUM_STEPS = 110  # more than four passes of a stream of 25 steps
NUM_ROWS = 4


def update(params, aux, grads, info):
    """Plain descent at the row's own rate; aux is all that an info tells, summed."""
    steps, rate, totals = aux
    params = jax.tree.map(lambda p, g: p - rate * g, params, grads)
    seen = (
        info.loss_sum,
        *(leaf.astype(rate.dtype) for leaf in (info.num_losses, info.length)),
        info.max_compensation,
        jnp.log(info.max_weight) + 1,
        info.end_of_stream.astype(rate.dtype),
    )
    weight = 1 + steps.astype(rate.dtype) / 100  # so that the order of the segments matters
    return params, (steps + info.length, rate, totals + weight * jnp.stack(seen))


def running(params, aux):
    return aux[0] < NUM_STEPS


def starts(problem, num_rows=NUM_ROWS):
    """Params, aux and keys of the rows: each begins with params of its own."""
    shifts = jnp.linspace(0.0, 0.1, num_rows)
    params = jax.vmap(lambda shift: jax.tree.map(lambda p: p + shift, problem.params))(shifts)
    rates = jnp.linspace(1e-3, 1e-2, num_rows)
    aux = (jnp.zeros(num_rows, jnp.int32), rates, jnp.zeros((num_rows, 6)))
    return params, aux, jax.random.split(jax.random.key(4), num_rows)


def row_of(tree, row):
    return jax.tree.map(lambda leaf: leaf[row], tree)


def loops(estimator, problem, rows, stream=None):
    """The loop in the docstring of `independent_runs`, for each of these rows."""
    stream = problem.stream if stream is None else stream

    @jax.jit
    def step(params, aux, state):
        grads, state, info = estimator.estimate(params, state, stream)
        return *update(params, aux, grads, info), state

    for row in rows:
        params, aux, keys = starts(problem)
        params, aux = row_of((params, aux), row)
        state = estimator.init(params, problem.carry, rng_key=keys[row])
        while running(params, aux):
            params, aux, state = step(params, aux, state)
        yield row, (params, aux, state)


def run_rows(problem, law, *, stream=None, **options):
    rows = contrib.independent_runs(
        problem.cell, problem.loss_fn, law, contrib.by_run(update), running, **options
    )
    params, aux, keys = starts(problem)
    state = rows.init(problem.carry, keys)
    return jax.jit(rows.run)(params, aux, state, problem.stream if stream is None else stream)


def assert_equal_rows(found, expected, row):
    params, aux, state = row_of(found, row)
    expected_params, expected_aux, expected_state = expected
    assert relative_error(params, expected_params) < 1e-12
    assert aux[0] == expected_aux[0]
    np.testing.assert_allclose(aux[2], expected_aux[2], rtol=1e-10)
    assert (state.position, state.num_estimates) == (
        expected_state.position,
        expected_state.num_estimates,
    )
    assert relative_error(state.carry, expected_state.carry) < 1e-12


@pytest.mark.parametrize(
    ("name", "block_size"), [("rnn", 1), ("rnn", 3), ("lstm", 3), ("lstm", 16)]
)
def test_rows_equal_the_loop(name, block_size):
    """With a batch, resets, masks, and several passes of the stream."""
    problem = make_problem(name, 25, resets=True, mask=True)
    found = run_rows(problem, LAW, block_size=block_size, normalizer=2.0)
    estimator = artbp.artbp(problem.cell, problem.loss_fn, LAW, normalizer=2.0)
    for row, expected in loops(estimator, problem, range(NUM_ROWS)):
        assert_equal_rows(found, expected, row)
    assert len(set(np.asarray(found[1][0]).tolist())) > 1  # the rows went ways of their own


def test_the_control_without_compensation_differs():
    problem = make_problem("rnn", 25)
    compensated = run_rows(problem, LAW)
    found = run_rows(problem, LAW, compensate=False)
    estimator = artbp.artbp(problem.cell, problem.loss_fn, LAW, compensate=False)
    for row, expected in loops(estimator, problem, range(NUM_ROWS)):
        assert_equal_rows(found, expected, row)
        assert relative_error(row_of(found[0], row), row_of(compensated[0], row)) > 1e-6
    # The same boundaries all the same.
    np.testing.assert_array_equal(found[2].num_estimates, compensated[2].num_estimates)


@pytest.mark.parametrize("block_size", [1, 2, 3])
def test_segments_far_longer_than_what_is_kept(block_size):
    """100 steps: 50 blocks of 2, of which 8 are kept; the others are reached from the start."""
    problem = make_problem("lstm", 130, mask=True)
    law = truncation.replay([100, 3, 17, 33], LAW)
    found = run_rows(problem, law, block_size=block_size)
    estimator = artbp.artbp(problem.cell, problem.loss_fn, law)
    for row, expected in loops(estimator, problem, (0, 3)):
        assert_equal_rows(found, expected, row)


def test_lengths_around_the_ring_that_do_not_agree_between_rows():
    """block_size 1 keeps 8 rounds: segments of 1, …, 24 blocks meet every state of the ring."""
    problem = make_problem("rnn", 400)
    lengths = jax.random.permutation(jax.random.key(7), jnp.arange(1, 25, dtype=jnp.int32))
    found = run_rows(problem, truncation.replay(np.asarray(lengths), LAW), block_size=1)
    estimator = artbp.artbp(
        problem.cell, problem.loss_fn, truncation.replay(np.asarray(lengths), LAW)
    )
    for row, expected in loops(estimator, problem, (0, 2)):
        assert_equal_rows(found, expected, row)


@pytest.mark.parametrize("block_size", [4, 7])
def test_tbptt_is_the_fixed_law(block_size):
    problem = make_problem("gru", 25, resets=True)
    found = run_rows(problem, truncation.fixed(7), block_size=block_size)
    estimator = artbp.tbptt(problem.cell, problem.loss_fn, truncation_length=7)
    for row, expected in loops(estimator, problem, (0, 2)):
        assert_equal_rows(found, expected, row)


def test_full_bptt_is_the_law_without_boundaries():
    problem = make_problem("rnn", 25)
    found = run_rows(problem, truncation.never(), block_size=3)
    estimator = artbp.bptt(problem.cell, problem.loss_fn)
    ((_, expected),) = loops(estimator, problem, [1])
    assert_equal_rows(found, expected, 1)


def test_a_stream_for_each_row():
    """xs [R, T, B, ...] beside shared targets."""
    problem = make_problem("rnn", 25)
    shared = problem.stream
    xs = shared.xs[None] + jnp.arange(float(NUM_ROWS))[:, None, None, None]
    found = run_rows(
        problem,
        LAW,
        stream=artbp.Stream(xs, shared.targets, num_steps=25),
        stream_axes=artbp.Stream(0, None, num_steps=25),
    )
    estimator = artbp.artbp(problem.cell, problem.loss_fn, LAW)
    for row in (1, 3):
        stream = artbp.Stream(xs[row], shared.targets)
        ((_, expected),) = loops(estimator, problem, [row], stream)
        assert_equal_rows(found, expected, row)


def test_steps_behind_the_stop_are_not_run():
    problem = make_problem("rnn", 25)
    xs, targets = (
        leaf.at[19:].set(jnp.nan) for leaf in (problem.stream.xs, problem.stream.targets)
    )
    stream = artbp.Stream(xs, targets, stop=np.int64(19))
    found = run_rows(problem, LAW, stream=stream, block_size=4)
    estimator = artbp.artbp(problem.cell, problem.loss_fn, LAW)
    ((_, expected),) = loops(estimator, problem, [2], stream)
    assert_equal_rows(found, expected, 2)


@pytest.mark.parametrize("impl", ["rbg", "unsafe_rbg"])
def test_lengths_do_not_depend_on_the_other_rows(impl):
    """Under `jax.vmap`, these keys draw numbers that depend on the first row."""
    problem = make_problem("rnn", 25)
    rows = contrib.independent_runs(
        problem.cell, problem.loss_fn, LAW, contrib.by_run(update), running, block_size=4
    )
    params, aux, _ = starts(problem)
    keys = jax.random.split(jax.random.key(4, impl=impl), NUM_ROWS)
    estimator = artbp.artbp(problem.cell, problem.loss_fn, LAW)
    _, _, state = jax.jit(rows.run)(params, aux, rows.init(problem.carry, keys), problem.stream)
    for row in (0, 2):
        own = estimator.init(row_of(params, row), problem.carry, rng_key=keys[row])
        steps = jax.jit(estimator.estimate)
        while own.num_steps < NUM_STEPS:
            own = steps(row_of(params, row), own, problem.stream)[1]
        counted = own.num_estimates, own.num_steps
        assert (state.num_estimates[row], state.num_steps[row]) == counted


def test_missing_observations_are_masked():
    """NaN targets where the mask is False, and a loss that is not finite at y = 0."""
    problem = make_problem("rnn", 25, mask=True)
    stream = problem.stream
    missing = artbp.Stream(
        stream.xs, jnp.where(stream.mask, stream.targets, jnp.nan), mask=stream.mask
    )

    def loss_fn(params, y, target):
        return (y @ params["readout"] - target) ** 2 + 1e-2 * jnp.log(jnp.sum(y**2, axis=-1))

    problem = problem._replace(loss_fn=loss_fn)
    found = run_rows(problem, LAW, stream=missing)
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(found[0]))
    estimator = artbp.artbp(problem.cell, loss_fn, LAW)
    ((_, expected),) = loops(estimator, problem, [2], missing)
    assert_equal_rows(found, expected, 2)


def test_a_row_that_diverges_leaves_the_others_alone():
    problem = make_problem("linear", 25)
    rows = contrib.independent_runs(
        problem.cell, problem.loss_fn, LAW, contrib.by_run(update), running, block_size=4
    )
    params, (steps, rates, totals), keys = starts(problem)

    def final(rates):
        state = rows.init(problem.carry, keys)
        return jax.jit(rows.run)(params, (steps, rates, totals), state, problem.stream)[0]

    tame, wild = final(rates), final(rates.at[1].set(1e9))
    assert not all(jnp.isfinite(leaf[1]).all() for leaf in jax.tree.leaves(wild))
    for row in (0, 2, 3):
        jax.tree.map(
            lambda a, b, row=row: np.testing.assert_array_equal(a[row], b[row]), tame, wild
        )


def test_run_goes_on_from_its_state():
    """Two runs equal one: the state holds all that the next segment needs."""
    problem = make_problem("lstm", 25)

    def rows_until(limit):
        return contrib.independent_runs(
            problem.cell,
            problem.loss_fn,
            LAW,
            contrib.by_run(update),
            lambda params, aux: aux[0] < limit,
            block_size=4,
        )

    params, aux, keys = starts(problem)
    half = rows_until(40)
    middle = jax.jit(half.run)(params, aux, half.init(problem.carry, keys), problem.stream)
    found = jax.jit(rows_until(NUM_STEPS).run)(*middle, problem.stream)
    expected = run_rows(problem, LAW, block_size=4)
    assert relative_error(found[0], expected[0]) < 1e-13
    np.testing.assert_array_equal(found[2].num_estimates, expected[2].num_estimates)
    # Nobody is left to run: nothing happens.
    again = jax.jit(rows_until(40).run)(*found, problem.stream)
    jax.tree.map(np.testing.assert_array_equal, again[:2], found[:2])


def test_a_hyperparameter_under_vmap():
    """`run` mapped over a decay that the cell closes over."""
    problem = make_problem("rnn", 25)
    params, aux, keys = starts(problem)

    def decaying(decay):
        def cell(params, carry, x):
            carry, y = problem.cell(params, carry, x)
            return jax.tree.map(lambda leaf: decay * leaf, carry), y

        return cell

    def final(decay):
        rows = contrib.independent_runs(
            decaying(decay),
            problem.loss_fn,
            LAW,
            contrib.by_run(update),
            running,
            block_size=4,
        )
        return rows.run(params, aux, rows.init(problem.carry, keys), problem.stream)[0]

    found = jax.jit(jax.vmap(final))(jnp.asarray([0.5, 0.9]))
    for i, decay in enumerate((0.5, 0.9)):
        estimator = artbp.artbp(decaying(decay), problem.loss_fn, LAW)
        ((_, (expected, _, _)),) = loops(estimator, problem, [2])
        assert relative_error(row_of(row_of(found, i), 2), expected) < 1e-12


def test_one_trace_for_all_lengths():
    problem = make_problem("rnn", 25)
    traces = []

    def cell(params, carry, x):
        traces.append(None)
        return problem.cell(params, carry, x)

    rows = contrib.independent_runs(cell, problem.loss_fn, LAW, contrib.by_run(update), running)
    run = jax.jit(rows.run)
    params, aux, keys = starts(problem)
    state = rows.init(problem.carry, keys)
    params, aux, state = run(params, aux, state, problem.stream)
    once = len(traces)
    aux = (jnp.zeros_like(aux[0]), *aux[1:])
    run(params, aux, state._replace(rng_key=keys[::-1]), problem.stream)
    assert len(traces) == once


def test_errors_say_what_to_do():
    problem = make_problem("rnn", 25)

    def rows(law=LAW, cell=problem.cell, **options):
        return contrib.independent_runs(
            cell, problem.loss_fn, law, contrib.by_run(update), running, **options
        )

    with pytest.raises(TypeError, match="truncation law"):
        rows(law=16)
    with pytest.raises(ValueError, match="normalizer"):
        rows(normalizer=0.0)
    with pytest.raises(ValueError, match="block_size"):
        rows(block_size=0)
    params, aux, keys = starts(problem)
    narrow = rows(cell=lambda params, carry, x: (carry.astype(jnp.float32), carry))
    with pytest.raises(ValueError, match="changed the carry"):
        narrow.run(params, aux, narrow.init(problem.carry, keys), problem.stream)
    good = rows()
    short = artbp.Stream(problem.stream.xs, problem.stream.targets[:20])
    with pytest.raises(ValueError, match="num_steps"):
        good.run(params, aux, good.init(problem.carry, keys), short)
    for part in (
        dataclasses.replace(problem.stream, ends=False),
        dataclasses.replace(problem.stream, history=4),
    ):
        with pytest.raises(ValueError, match="needs the whole sequence"):
            good.run(params, aux, good.init(problem.carry, keys), part)
    for stop, message in ((26, "stop is 26"), (np.array([3, 4]), "stop is .* expected an integer")):
        part = dataclasses.replace(problem.stream, stop=stop)
        with pytest.raises(ValueError, match=message):
            good.run(params, aux, good.init(problem.carry, keys), part)

    def noisy(params, carry, rng_key):
        carry = jax.tree.map(lambda s: s + jax.random.normal(rng_key, s.shape, s.dtype), carry)
        return carry, carry

    alike, other = (jax.random.split(jax.random.key(0, impl=i), 25) for i in (None, "rbg"))
    alone = rows(cell=noisy)
    with pytest.raises(ValueError, match="keys that are not threefry's"):
        stream = artbp.Stream(other, problem.stream.targets)
        alone.run(params, aux, alone.init(problem.carry, keys), stream)
    noise_of_loss = contrib.independent_runs(
        lambda params, carry, x: problem.cell(params, carry, x[0]),
        lambda params, y, target: jnp.sum(y, axis=-1) + jax.random.normal(target),
        LAW,
        contrib.by_run(update),
        running,
    )
    with pytest.raises(ValueError, match="keys that are not threefry's"):
        stream = artbp.Stream((problem.stream.xs,), other)
        noise_of_loss.run(params, aux, noise_of_loss.init(problem.carry, keys), stream)
    stream = artbp.Stream(alike, problem.stream.targets)
    jax.eval_shape(alone.run, params, aux, alone.init(problem.carry, keys), stream)
    integers = jax.tree.map(lambda p: p.astype(jnp.int32), params)
    with pytest.raises(TypeError, match="float parameters"):
        good.run(integers, aux, good.init(problem.carry, keys), problem.stream)


@pytest.mark.parametrize("key", [jax.random.key(0), jax.random.PRNGKey(0)], ids=["typed", "raw"])
def test_one_key_is_not_a_run_each(key):
    problem = make_problem("rnn", 9)
    trainer = contrib.independent_runs(problem.cell, problem.loss_fn, LAW, update, running)
    with pytest.raises(ValueError, match="expected one key for each run"):
        trainer.init(problem.carry, key)
