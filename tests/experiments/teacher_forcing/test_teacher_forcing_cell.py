"""The cell that takes the truth or its own forecast, against loops in Python."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from problems import relative_error

import artbp
from experiments.tasks import losses
from experiments.teacher_forcing import model
from experiments.teacher_forcing.training import adam_falling_to_zero

STEPS, ROWS, UNITS = 8, 3, 4


def make(seed=0):
    keys = jax.random.split(jax.random.key(seed), 3)
    dtype = jnp.result_type(float)
    params = jax.tree.map(lambda leaf: leaf.astype(dtype), model.init(keys[0], UNITS))
    values = jax.random.normal(keys[1], (STEPS, ROWS, 1))
    nexts = jax.random.normal(keys[2], (STEPS, ROWS, 1))
    visible = model.shown(STEPS, ROWS, truth_steps=1, free_steps=3)
    return params, values, nexts, visible


def in_python(params, values, visible, *, gates=None):
    """Forecasts [T, B, 1]; gates are factors on the gradient through what a step leaves."""
    hidden, forecast, ys = jnp.zeros((ROWS, UNITS)), jnp.zeros((ROWS, 1)), []
    for t in range(STEPS):
        u = jnp.stack([values[t, b] if visible[t, b] else forecast[b] for b in range(ROWS)])
        hidden, y = artbp.cells.gru(params["cell"], hidden, u)
        ys.append(forecast := losses.readout(params, y))
        if gates is not None and gates[t] == 0:
            hidden, forecast = jax.lax.stop_gradient((hidden, forecast))
    return jnp.stack(ys)


def test_forecasts_are_fed_back_where_the_truth_is_not_shown():
    params, values, _, visible = make()
    carry = model.initial_carry(params, ROWS)
    _, ys = artbp.unroll(model.cell, params, carry, model.Input(values, visible))
    twin = jax.jit(lambda params, values: in_python(params, values, visible))
    np.testing.assert_allclose(ys, twin(params, values), atol=1e-6)
    hidden_values = jnp.where(visible[..., None], values, jnp.nan)
    _, same = artbp.unroll(model.cell, params, carry, model.Input(hidden_values, visible))
    np.testing.assert_array_equal(ys, same)
    everywhere = np.ones_like(visible)
    _, forced = artbp.unroll(model.cell, params, carry, model.Input(values, everywhere))
    assert float(jnp.abs(forced - ys).max()) > 0.01


@pytest.mark.parametrize("free_steps", [0, 3])
def test_the_gradient_goes_through_what_is_fed_back_and_is_cut_there_too(free_steps, float64):
    params, values, nexts, _ = make()
    given = model.Series(np.asarray(values), np.asarray(nexts))
    stream = model.training_stream(given, truth_steps=1, free_steps=free_steps)
    estimator = artbp.tbptt(model.cell, model.loss_fn, truncation_length=4)
    state = estimator.init(params, model.initial_carry(params, ROWS), rng_key=jax.random.key(0))
    total = jax.tree.map(jnp.zeros_like, params)
    for _ in range(2):
        grads, state, info = estimator.estimate(params, state, stream)
        total = jax.tree.map(jnp.add, total, grads)
    assert bool(info.end_of_stream)

    def gradient(gates):
        def loss(params):
            ys = in_python(params, values, stream.xs.shown, gates=gates)
            return jnp.sum(jnp.square(ys - nexts))

        return jax.jit(jax.grad(loss))(params)

    gates = (np.arange(1, STEPS + 1) % 4 != 0).astype(float)
    assert relative_error(total, gradient(gates)) < 1e-12
    assert relative_error(total, gradient(np.ones(STEPS))) > 1e-3


def test_when_the_truth_is_shown():
    assert model.shown(7, 2, truth_steps=3, free_steps=0).all()
    visible = model.shown(40, 5, truth_steps=4, free_steps=6)
    assert visible[:4].all()
    settled = visible[10:]  # after the first period, rows differ in their phase only
    np.testing.assert_array_equal(settled[:10], settled[10:20])
    assert (settled[:10].sum(axis=0) == 4).all()
    ages = {tuple(column) for column in settled[:10].T}
    assert len(ages) == 5
    np.testing.assert_array_equal(visible[:10, 0], [True] * 4 + [False] * 6)


def test_the_rate_falls_with_time_steps_not_with_updates():
    optimizer = adam_falling_to_zero(100, 0.1)
    params = {"x": jnp.array([1.0])}
    state = optimizer.init(params)
    for time_step, expected in ((50, -0.05), (75, -0.025), (100, 0.0)):
        updates, state = optimizer.update({"x": jnp.array([3.0])}, state, time_step=time_step)
        np.testing.assert_allclose(updates["x"], [expected], atol=1e-6)
