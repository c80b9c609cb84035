"""The live monitor equals plain gradients and does not change a training."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from problems import make_problem

import artbp
from artbp import truncation
from artbp.diagnostics import shadow

LAW = truncation.polynomial(5, 4)
NUM_STEPS, WINDOW, HISTORY = 60, 12, 60


def make(**options):
    return make_problem("rnn", NUM_STEPS, batch=3, resets=True, mask=True, **options)


def train(problem, rate, every=None, num_updates=10):
    """Returns params and state after some updates, and the measurements."""
    estimator = artbp.artbp(problem.cell, problem.loss_fn, LAW)
    estimate = jax.jit(estimator.estimate, donate_argnums=1)
    measure = jax.jit(
        shadow(
            problem.cell,
            problem.loss_fn,
            window_length=WINDOW,
            truncation_lengths=(3,),
            law=LAW,
            history_length=HISTORY,
        )
    )
    params, measured = problem.params, []
    state = estimator.init(params, problem.carry, rng_key=jax.random.key(4))
    for step in range(num_updates):
        if every and step % every == 0:
            measured.append(measure(params, state, problem.stream, jax.random.key(step)))
        grads, state, _ = estimate(params, state, problem.stream)
        params = jax.tree.map(lambda p, g: p - rate * g, params, grads)
    return params, state, measured


def test_the_trajectory_is_the_same_bit_for_bit():
    problem = make()
    alone, alone_state, _ = train(problem, 0.02)
    beside, beside_state, measured = train(problem, 0.02, every=3)
    assert len(measured) == 4
    jax.tree.map(np.testing.assert_array_equal, alone, beside)
    jax.tree.map(np.testing.assert_array_equal, alone_state.carry, beside_state.carry)
    assert all(np.isfinite(value) for metrics in measured for value in metrics.values())


def test_the_carry_error_grows_with_the_learning_rate(float64):
    """The carry error is zero for frozen params and grows with the learning rate."""
    problem = make()
    errors = {}
    for rate in (0.0, 0.01, 0.03):
        *_, measured = train(problem, rate, every=1, num_updates=4)
        errors[rate] = [float(metrics["carry_error"]) for metrics in measured]
    assert max(errors[0.0]) < 1e-12
    assert errors[0.01][0] < 1e-12  # the initial carry does not depend on params
    assert 1e-6 < errors[0.01][-1] < errors[0.03][-1]


@pytest.mark.parametrize("position", [0, 25, 55])
def test_equals_plain_gradients(position, float64):
    """Windows from the start, the middle and across the end of the stream; two of three rows."""
    problem = make()
    stream, rows = problem.stream, slice(2)
    carry, _ = artbp.unroll(
        problem.cell,
        problem.params,
        problem.carry,
        stream.xs[:position],
        resets=stream.resets[:position],
        initial_carry=problem.carry,
    )
    estimator = artbp.artbp(problem.cell, problem.loss_fn, LAW)
    carries = {"initial_carry": problem.carry}
    state = estimator.init(problem.params, problem.carry, rng_key=jax.random.key(0), **carries)
    state = state._replace(position=jnp.int32(position), carry=carry)
    key = jax.random.key(9)
    measure = shadow(
        problem.cell,
        problem.loss_fn,
        window_length=WINDOW,
        truncation_lengths=(1, 5),
        law=LAW,
        num_draws=3,
        num_rows=2,
    )
    found = jax.jit(measure)(problem.params, state, stream, key)

    steps = slice(position, position + WINDOW)
    xs, targets = stream.xs[steps, rows], stream.targets[steps, rows]
    resets, mask = stream.resets[steps, rows], stream.mask[steps, rows]

    @jax.jit
    def gradient(gates):
        def loss(params):
            _, ys = artbp.unroll(
                problem.cell,
                params,
                carry[rows],
                xs,
                gates=gates[: len(xs)],
                resets=resets,
                initial_carry=problem.carry[rows],
            )
            losses = jax.vmap(problem.loss_fn, (None, 0, 0))(params, ys, targets)
            return jnp.sum(jnp.where(mask, losses, 0.0))

        return ravel_pytree(jax.grad(loss)(problem.params))[0]

    whole = gradient(jnp.ones(WINDOW))
    size = np.linalg.norm(whole)
    np.testing.assert_allclose(found["gradient_norm"], size, rtol=1e-10)
    for length in (1, 5):
        cut = gradient(jnp.where(jnp.arange(1, WINDOW + 1) % length == 0, 0.0, 1.0))
        error = cut - whole
        np.testing.assert_allclose(found[f"bias_{length}"], np.linalg.norm(error) / size, rtol=1e-9)
        np.testing.assert_allclose(
            found[f"projection_{length}"], error @ whole / size**2, rtol=1e-9, atol=1e-12
        )
    drawn = [gradient(LAW.sample_gates(k, WINDOW)) - whole for k in jax.random.split(key, 3)]
    expected = np.sqrt(np.mean(np.sum(np.square(drawn), axis=1))) / size
    np.testing.assert_allclose(found["artbp_noise"], expected, rtol=1e-9)
    assert set(found) == {
        "gradient_norm",
        "bias_1",
        "projection_1",
        "bias_5",
        "projection_5",
        "artbp_noise",
    }


def chunk_of(stream, first, last, *, history, padding=0, **options):
    """Steps first − history, …, last − 1 of a stream and padding, as from a loader."""
    fields = stream.xs, stream.targets, stream.resets, stream.mask
    steps = slice(first - history, last + padding)
    return artbp.Stream(*(leaf[steps] for leaf in fields), history=history, **options)


def test_a_stream_from_a_loader_gives_the_same_window(float64):
    """The window begins after the history, and ends where the steps to run end."""
    problem = make()
    whole = problem.stream
    estimator = artbp.artbp(problem.cell, problem.loss_fn, LAW)
    state = estimator.init(problem.params, problem.carry, rng_key=jax.random.key(0))
    options = {"window_length": WINDOW, "truncation_lengths": (3,)}
    measure = jax.jit(shadow(problem.cell, problem.loss_fn, **options))

    def found(stream, position):
        moved = state._replace(position=jnp.int32(position))
        return measure(problem.params, moved, stream, jax.random.key(1))

    expected = found(whole, 23)
    for name, value in found(chunk_of(whole, 20, 50, history=8, ends=False), 3).items():
        np.testing.assert_allclose(value, expected[name], rtol=1e-12)
    control = found(whole, 15)  # the window without the history added
    assert abs(control["gradient_norm"] / expected["gradient_norm"] - 1) > 0.01

    # Four steps before the end of the steps to run: a shorter window, whatever the padding holds.
    counts = whole.mask & (jnp.arange(NUM_STEPS) < 27)[:, None]
    expected = found(dataclasses.replace(whole, mask=counts), 23)
    padded = chunk_of(whole, 20, 27, history=8, padding=9, ends=False, stop=np.int32(15))
    for name, value in found(padded, 3).items():
        np.testing.assert_allclose(value, expected[name], rtol=1e-12)


@pytest.mark.parametrize("part", ["goes on", "has a history", "has a stop"])
def test_a_carry_cannot_be_computed_again_from_a_part_of_a_sequence(part):
    problem = make()
    options = {
        "goes on": {"history": 0, "ends": False},
        "has a history": {"history": 8},
        "has a stop": {"history": 0, "stop": np.int32(20)},
    }[part]
    estimator = artbp.artbp(problem.cell, problem.loss_fn, LAW)
    state = estimator.init(problem.params, problem.carry, rng_key=jax.random.key(0))
    measure = shadow(problem.cell, problem.loss_fn, window_length=8, history_length=4)
    chunk = chunk_of(problem.stream, 20, 60, **options)
    with pytest.raises(ValueError, match=r"history_length=4 with a stream .*history_length=0"):
        jax.eval_shape(measure, problem.params, state, chunk, jax.random.key(1))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"truncation_lengths": (8,)}, "window_length − 1 = 7"),
        ({"history_length": -1}, "history_length=-1"),
        ({"num_rows": 0}, "num_rows"),
        ({"law": 5}, "expected a truncation law"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises((ValueError, TypeError), match=message):
        shadow(lambda p, s, x: (s, s), lambda p, y, t: y, window_length=8, **options)
