"""Leaves of the carry that resets and the end of a pass leave as they are: None in `initial_carry`.

The twin is a Python loop over two passes, in which a reset replaces one entry of the carry.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from problems import relative_error
from test_initial_carry import OTHER_GRADIENTS

import artbp
from artbp import _tree

STEPS, ROWS, INPUTS, HIDDEN = 6, 2, 3, 4
# The drivers and kernels are in `FLOWS` and here; the others take the same cell through them.
CORE = ("tbptt_stored", "pes")
NAMES = [pytest.param(n, marks=[] if n in CORE else pytest.mark.slow) for n in artbp.REGISTRY]


def cell(params, carry, x, cut=False):
    """A tanh cell with noise of its own key, a counter, and a running mean over the rows."""
    hidden, (key, count, mean) = carry["hidden"], carry["lasting"]
    mean = jax.lax.stop_gradient(mean) if cut else mean
    key, noise_key = jax.random.split(key)
    noise = jax.random.normal(noise_key, hidden.shape, hidden.dtype)
    level = params["mean"] * mean[None] + 0.05 * count.astype(hidden.dtype)
    hidden = jnp.tanh(hidden @ params["recurrent"] + x @ params["input"] + level + 0.1 * noise)
    mean = 0.7 * mean + 0.3 * jnp.mean(hidden, axis=0)
    return {"hidden": hidden, "lasting": (key, count + 1, mean)}, hidden


cut_cell = functools.partial(cell, cut=True)


def loss_fn(params, y, target):
    return 0.5 * (y @ params["readout"] - target) ** 2


def make(resets):
    """(params, carry, initial carry, stream)."""
    rng, dtype = np.random.default_rng(0), jnp.result_type(float)
    normal = lambda *shape: jnp.asarray(rng.standard_normal(shape), dtype)  # noqa: E731
    params = {
        "input": normal(INPUTS, HIDDEN),
        "recurrent": jnp.asarray(np.linalg.qr(rng.standard_normal((HIDDEN, HIDDEN)))[0], dtype),
        "mean": jnp.asarray(0.8, dtype),
        "readout": normal(HIDDEN),
    }
    lasting = jax.random.key(7), np.zeros((), np.int32), normal(HIDDEN)
    carry = {"hidden": normal(ROWS, HIDDEN), "lasting": lasting}
    initial_carry = {"hidden": normal(ROWS, HIDDEN), "lasting": None}
    xs, targets = normal(STEPS, ROWS, INPUTS), normal(STEPS, ROWS)
    return params, carry, initial_carry, artbp.Stream(xs, targets, resets=resets)


# A reset before every step but the first: truncation then changes nothing.
EACH_STEP = np.tile(np.arange(STEPS)[:, None] > 0, (1, ROWS))
SOME_STEPS = np.arange(STEPS * ROWS).reshape(STEPS, ROWS) % 5 == 3


def loop(cell, params, carry, initial_carry, stream):
    """(the summed losses of a pass, its last carry), by hand."""
    total = 0.0
    for t in range(STEPS):
        reset = jnp.asarray(stream.resets[t])[:, None]
        hidden = jnp.where(reset, initial_carry["hidden"], carry["hidden"])
        carry, y = cell(params, {**carry, "hidden": hidden}, stream.xs[t])
        total += jnp.sum(loss_fn(params, y, stream.targets[t]))
    return total, carry


@functools.cache
def two_passes(cell, at_each_step):
    """[(losses, gradient, the carry after the pass)] by the loop."""
    data = make(EACH_STEP if at_each_step else SOME_STEPS)
    params, carry, initial_carry, stream = data
    run = jax.jit(jax.value_and_grad(functools.partial(loop, cell), has_aux=True))
    found, first = [], carry["hidden"]
    for _ in range(2):
        (losses, last), gradient = run(params, carry, initial_carry, stream)
        found.append((losses, gradient, last))
        carry = {**last, "hidden": first}
    return data, found


def assert_same_carries(carry, expected):
    (key, *lasting), (expected_key, *expected_lasting) = carry["lasting"], expected["lasting"]
    np.testing.assert_array_equal(jax.random.key_data(key), jax.random.key_data(expected_key))
    pairs = (carry["hidden"], lasting), (expected["hidden"], expected_lasting)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-12), *pairs)


def compare(estimator, cell, at_each_step, has_gradient=True):
    """Two passes of the estimator with those of the loop."""
    data, passes = two_passes(cell, at_each_step)
    params, carry, initial_carry, stream = data
    options = {"rng_key": jax.random.key(1), "initial_carry": initial_carry}
    state = estimator.init(params, carry, **options)
    for losses, gradient, last in passes:
        total, state = artbp.run_pass(
            estimator,
            params,
            state,
            stream,
            initial=(jax.tree.map(jnp.zeros_like, params), 0.0),
            fold=lambda sums, grads, info: (
                jax.tree.map(jnp.add, sums[0], grads),
                sums[1] + float(info.loss_sum),
            ),
        )
        np.testing.assert_allclose(total[1], losses, rtol=1e-12)
        if has_gradient:
            assert relative_error(total[0], gradient) < 1e-11
        assert_same_carries(state.carry, {**last, "hidden": carry["hidden"]})
    return state


@pytest.mark.parametrize("name", NAMES)
def test_every_estimator_leaves_them(name, float64):
    """With resets by row, though none of these leaves has rows."""
    estimator = artbp.REGISTRY[name].build(cut_cell, loss_fn, 4)
    state = compare(estimator, cut_cell, True, name not in OTHER_GRADIENTS)
    if name == "pes":  # the particles too begin the next pass with this carry
        for i in range(2):
            particle = _tree.index(state.inner_state.carries, i)
            assert_same_carries(particle, state.carry)


FLOWS = {
    "dynamic": lambda: artbp.bptt(cell, loss_fn, block_size=4),
    "look-back": lambda: artbp.unbiased_tbptt(
        cell, loss_fn, artbp.truncation.never(), truncation_length=4
    ),
    "rtrl": lambda: artbp.rtrl(cell, loss_fn, update_every=4),
}


@pytest.mark.parametrize("kernel", FLOWS)
def test_their_gradient_crosses_resets(kernel, float64):
    compare(FLOWS[kernel](), cell, False)


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["exact", "pow2"])
def test_host_driven_policies(policy, float64):
    compare(artbp.bptt(cell, loss_fn, policy=policy, block_size=4), cell, False)


@pytest.mark.parametrize("unroll", [artbp.unroll, artbp.fused_unroll])
def test_unrolls_leave_them(unroll, float64):
    """Gradients with respect to params, first carry and initial carry."""
    (params, carry, initial_carry, stream), _ = two_passes(cell, False)

    def unrolled(params, hidden, mean, initial):
        key, count, _ = carry["lasting"]
        first = {"hidden": hidden, "lasting": (key, count, mean)}
        options = {"resets": stream.resets, "initial_carry": {**initial_carry, "hidden": initial}}
        last, ys = unroll(cell, params, first, stream.xs, **options)
        return jnp.sum(jax.vmap(loss_fn, (None, 0, 0))(params, ys, stream.targets)), last

    def by_hand(params, hidden, mean, initial):
        key, count, _ = carry["lasting"]
        first = {"hidden": hidden, "lasting": (key, count, mean)}
        return loop(cell, params, first, {**initial_carry, "hidden": initial}, stream)

    at = params, carry["hidden"], carry["lasting"][2], initial_carry["hidden"]
    (losses, last), gradient = jax.jit(jax.value_and_grad(unrolled, range(4), has_aux=True))(*at)
    (expected, hand), gradients = jax.jit(jax.value_and_grad(by_hand, range(4), has_aux=True))(*at)
    np.testing.assert_allclose(losses, expected, rtol=1e-12)
    assert_same_carries(last, hand)
    for ours, theirs in zip(gradient, gradients, strict=True):
        assert relative_error(ours, theirs) < 1e-12


@pytest.mark.parametrize("lasting", ["hidden", pytest.param("memory", marks=pytest.mark.slow)])
def test_a_part_of_the_carry_of_an_lstm(lasting, float64):
    """Its backward pass is written by hand."""
    lstm = artbp.cells.lstm
    params = lstm.init(jax.random.key(0), INPUTS, HIDDEN, dtype=jnp.float64)
    _, _, _, stream = make(SOME_STEPS)
    carry = jax.tree.map(lambda leaf: leaf + 0.3, lstm.initial_carry(params, ROWS))
    options = {"resets": stream.resets, "initial_carry": carry._replace(**{lasting: None})}

    def gradient(unroll):
        run = lambda *at: jnp.sum(unroll(lstm, *at, stream.xs, **options)[1] ** 2)  # noqa: E731
        return jax.jit(jax.grad(run, (0, 1)))(params, carry)

    ours, expected = gradient(artbp.fused_unroll), gradient(artbp.unroll)
    assert relative_error(ours, expected) < 1e-12


def test_evaluation_leaves_them(float64):
    (params, carry, initial_carry, stream), passes = two_passes(cell, False)
    found = artbp.evaluate(
        cell, loss_fn, params, carry, stream, initial_carry=initial_carry, chunk_size=4
    )
    losses, _, last = passes[0]
    np.testing.assert_allclose(found.loss_sum, losses, rtol=1e-12)
    assert_same_carries(found.carry, last)


def test_padded_batches(float64):
    """Resets by row in the padding, which may hold NaN. The mean over rows has no influence."""
    params, carry, initial_carry, stream = make(None)
    params, lengths = {**params, "mean": jnp.zeros(())}, np.array([STEPS, 2])
    beyond = np.arange(STEPS)[:, None] >= lengths
    xs = np.where(beyond[..., None], np.nan, stream.xs)
    padded = artbp.Stream(xs, np.asarray(stream.targets), lengths=lengths)
    masked = artbp.Stream(stream.xs, stream.targets, mask=~beyond)
    padded, masked = (
        artbp.evaluate(cell, loss_fn, params, carry, s, initial_carry=initial_carry)
        for s in (padded, masked)
    )
    np.testing.assert_allclose(padded.loss_sum, masked.loss_sum, rtol=1e-12)


@pytest.mark.slow
def test_independent_runs_leave_them(float64):
    (params, carry, initial_carry, stream), passes = two_passes(cut_cell, True)

    @artbp.contrib.by_run
    def update(params, aux, grads, info):
        total = jax.tree.map(jnp.add, aux[2], grads)
        return params, (aux[0] + info.loss_sum, aux[1] + info.length, total)

    law = artbp.truncation.geometric(3)
    running = lambda params, aux: aux[1] < 2 * STEPS  # noqa: E731
    runs = artbp.contrib.independent_runs(cut_cell, loss_fn, law, update, running)
    state = runs.init(carry, jax.random.split(jax.random.key(0), 2), initial_carry)
    params = jax.tree.map(lambda leaf: jnp.stack([leaf] * 2), params)
    aux = jnp.zeros(2), jnp.zeros(2, jnp.int32), jax.tree.map(jnp.zeros_like, params)
    _, (losses, _, total), state = runs.run(params, aux, state, stream)
    (first, gradient, _), (second, other, last) = passes
    last = {**last, "hidden": carry["hidden"]}
    for run in range(2):
        np.testing.assert_allclose(losses[run], first + second, rtol=1e-12)
        grads = jax.tree.map(lambda leaf, run=run: leaf[run], total)
        assert relative_error(grads, jax.tree.map(jnp.add, gradient, other)) < 1e-11
        assert_same_carries(jax.tree.map(lambda leaf, run=run: leaf[run], state.carry), last)


def test_what_does_not_fit():
    params, carry, initial_carry, stream = make(SOME_STEPS)
    estimator = artbp.rtrl(cell, loss_fn)
    init = functools.partial(estimator.init, params, carry, rng_key=jax.random.key(0))
    with pytest.raises(ValueError, match="put None in its place in initial_carry"):
        artbp.evaluate(cell, loss_fn, params, carry, stream)
    with pytest.raises(ValueError, match="put None in its place in initial_carry"):
        estimator.estimate(params, init(), stream)
    with pytest.raises(ValueError, match="initial_carry is None"):
        artbp.unroll(cell, params, carry, stream.xs, resets=stream.resets)
    for wrong in ({"hidden": None}, {**initial_carry, "hidden": jnp.zeros(3)}, (None, None)):
        with pytest.raises(ValueError, match="or None in place"):
            init(initial_carry=wrong)
