"""Auxiliary losses at anchors, against a loop that runs the network anew for each of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from problems import make_problem, relative_error

import artbp
from artbp.contrib import auxiliary_loss, with_auxiliary_loss

pytestmark = pytest.mark.usefixtures("float64")

NUM_STEPS, EVERY, LENGTH, REACH, WEIGHT = 11, 3, 2, 3, 0.7
KEY = jax.random.key(7)
BUILDERS = {
    "bptt": artbp.bptt,
    "rtrl": lambda *model, **options: artbp.rtrl(*model, update_every=5, **options),
    "tbptt": lambda *model, **options: artbp.tbptt(*model, truncation_length=2, **options),
    "unbiased_tbptt": lambda *model, **options: artbp.unbiased_tbptt(
        *model, artbp.truncation.geometric(2), truncation_length=4, **options
    ),
}
DAILY = "unbiased_tbptt"  # it has an inner state
WINDOWS = {"bptt": "after", "rtrl": "before", "tbptt": "after", "unbiased_tbptt": "before"}


def decoder(params, carry, x):
    """Uses input weights of the main network, so that both parts of the pair have a gradient."""
    carry = jnp.tanh(carry @ params[1]["recurrent"] + x @ params[0]["cell"]["input"])
    return carry, carry


def decoder_loss(params, y, x):
    return jnp.sum((y @ params[1]["output"] - x) ** 2, axis=-1)


def wrap(estimator, cell, window, **changes):
    lengths = {"window_length": LENGTH, "truncation_length": REACH, "anchor_every": EVERY}
    options = {"window": window, "weight": WEIGHT, "normalizer": 3.0} | lengths | changes
    return with_auxiliary_loss(estimator, cell, decoder, decoder_loss, **options)


@pytest.fixture(scope="module")
def problem():
    with jax.enable_x64(True):
        main = make_problem("rnn", NUM_STEPS, resets=True)
        keys = jax.random.split(jax.random.key(3))
        own = {
            "recurrent": jax.random.normal(keys[0], (4, 4)) / 2,
            "output": jax.random.normal(keys[1], (4, 3)),
        }
        return main._replace(params=(main.params, own))


@pytest.fixture(scope="module")
def after_reset(problem):
    """The initial carry, which is not the first one."""
    return jnp.full_like(problem.carry, -0.2)


def a_pass(estimate, params, state, stream):
    """(summed gradients, the infos, the state after the pass)."""
    infos, total = [], jax.tree.map(np.zeros_like, params)
    while not (infos and infos[-1].end_of_stream):
        grads, state, info = estimate(params, state, stream)
        total = jax.tree.map(np.add, total, grads)
        infos.append(info)
    return total, infos, state


def anchors(pass_number):
    """The anchors of a pass, drawn as the module says."""

    def draw(block):
        key = jax.random.fold_in(KEY, auxiliary_loss._DOMAIN)
        key = jax.random.fold_in(jax.random.fold_in(key, NUM_STEPS * pass_number), block)
        return jax.random.randint(key, (), 0, EVERY, jnp.int32)

    with jax.ensure_compile_time_eval():
        blocks = np.arange(-(-NUM_STEPS // EVERY))
        return (blocks * EVERY + jax.vmap(draw)(blocks)).tolist()


def plain_loss(params, problem, after_reset, window, at, reach=REACH):
    """(the summed auxiliary losses of anchors, their number), from the first step on for each."""
    stream, total, count = problem.stream, 0.0, 0
    for anchor in at:
        at_window = range(anchor - LENGTH, anchor)
        if window == "after":
            at_window = range(anchor + 1, anchor + LENGTH + 1)
        if anchor >= NUM_STEPS or at_window[0] < 0 or at_window[-1] >= NUM_STEPS:
            continue
        carry = problem.carry
        for t in range(anchor + 1):
            if t == anchor + 1 - reach:
                carry = jax.lax.stop_gradient(carry)
            carry = jnp.where(stream.resets[t][:, None], after_reset, carry)
            carry, _ = problem.cell(params[0], carry, stream.xs[t])
        between = range(min(anchor, at_window[0]) + 1, max(anchor, at_window[-1]) + 1)
        counts = ~stream.resets[np.array(between)].any(axis=0)
        count += counts.sum()
        x = stream.xs[anchor]
        for t in at_window:
            carry, y = decoder(params, carry, x)
            x = stream.xs[t]
            losses = decoder_loss(params, y, x) / LENGTH
            total += jnp.sum(jnp.where(counts, losses, 0.0))
    return total, count


@pytest.fixture(scope="module")
def of_loop(problem, after_reset):
    """(loss, number) and gradient by the loop for each window and pass, and with a longer reach."""

    def all_of_them(params):
        def of(*given):
            given = (params, problem, after_reset, *given)
            return jax.value_and_grad(plain_loss, has_aux=True)(*given)

        cases = [("after", 0), ("before", 0), ("before", 1)]
        found = {case: of(case[0], anchors(case[1])) for case in cases}
        return found | {("longer", 0): of("before", anchors(0), REACH + 1)}

    with jax.enable_x64(True):
        return jax.jit(all_of_them)(problem.params)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[] if name == DAILY else [pytest.mark.slow])
        for name in sorted(BUILDERS)
    ],
)
def test_every_estimator_gets_the_gradient_of_the_loop(name, problem, after_reset, of_loop):
    expected = [found for (window, _), found in sorted(of_loop.items()) if window == WINDOWS[name]]
    inner = BUILDERS[name](problem.cell, problem.loss_fn, normalizer=2.0)
    wrapped = wrap(inner, problem.cell, WINDOWS[name])
    states = [
        estimator.init(params, problem.carry, rng_key=KEY, initial_carry=after_reset)
        for estimator, params in ((inner, problem.params[0]), (wrapped, problem.params))
    ]
    alone, both = jax.jit(inner.estimate), jax.jit(wrapped.estimate)
    for (loss, count), grads in expected:
        main, of_main, states[0] = a_pass(alone, problem.params[0], states[0], problem.stream)
        total, infos, states[1] = a_pass(both, problem.params, states[1], problem.stream)
        added = jax.tree.map(np.subtract, total[0], main), total[1]
        added = jax.tree.map(lambda leaf: leaf * 3 / WEIGHT, added)
        assert relative_error(added, grads) < 1e-12
        assert sum(int(info.extra["num_auxiliary_losses"]) for info in infos) == int(count) > 0
        np.testing.assert_allclose(sum(info.extra["auxiliary_loss"] for info in infos), loss)
        assert [info.loss_sum for info in infos] == [info.loss_sum for info in of_main]


def test_the_comparison_sees_other_anchors_and_one_more_step_of_reach(of_loop):
    grads = {case: found[1] for case, found in of_loop.items()}
    assert relative_error(grads["before", 1], grads["before", 0]) > 0.1
    assert relative_error(grads["longer", 0], grads["before", 0]) > 1e-3
