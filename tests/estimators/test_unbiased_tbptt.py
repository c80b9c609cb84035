"""Unbiased TBPTT: enumeration over all look-backs, and twins that are slow and obvious."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from problems import CELLS, as_function, bptt_gradient, make_problem, one_pass, relative_error

import artbp
from artbp import truncation
from artbp.truncation.base import as_ages

pytestmark = pytest.mark.usefixtures("float64")

NUM_STEPS, LENGTH = 9, 2  # five windows, the last of one step
NUM_WINDOWS = -(-NUM_STEPS // LENGTH)
LAW = truncation.polynomial(1.7, 4)
# So small that look-backs go beyond the residuals, beyond the carries and between the anchors.
SMALL = {"stored_windows": 1, "stored_carries": 2}
MODES = ("stored", "reforward")
RATE = 0.05


def sgd(params, grads):
    return jax.tree.map(lambda p, g: p - RATE * g, params, grads)


def look_backs():
    """All look-backs of all windows, [N, windows], and their probabilities under LAW."""
    rows = np.array(list(itertools.product(*(range(1, n + 2) for n in range(NUM_WINDOWS)))))
    n = np.arange(NUM_WINDOWS)
    chance = np.where(rows <= n, LAW.survival(rows - 1) - LAW.survival(rows), LAW.survival(n))
    return rows, np.prod(chance, axis=1)


class Shifted(artbp.truncation.TruncationLaw):
    """A law whose compensations are one edge off."""

    def hazard(self, k):
        return LAW.hazard(k + 1)


def expectation(problem, mode, *, law=LAW, change=lambda rows: rows, drop_last=False):
    """The mean of the summed gradients of one pass, over all look-backs."""
    rows, probabilities = look_backs()
    np.testing.assert_allclose(probabilities.sum(), 1, rtol=1e-13)

    def gradient(row):
        estimator = artbp.unbiased_tbptt(
            problem.cell,
            problem.loss_fn,
            truncation.replay(row, law),
            truncation_length=LENGTH,
            mode=mode,
            **SMALL,
        )
        state = estimator.init(problem.params, problem.carry, rng_key=jax.random.key(0))

        def fold(total, grads, info):
            weight = jnp.where(drop_last & info.end_of_stream, 0.0, 1.0)
            return jax.tree.map(lambda t, g: t + weight * g, total, grads)

        return artbp.run_pass(estimator, problem.params, state, problem.stream, fold=fold)[0]

    changed = jnp.asarray(change(rows), jnp.int32)
    gradients = jax.jit(lambda rows: jax.lax.map(gradient, rows))(changed)
    return jax.tree.map(lambda leaf: jnp.tensordot(probabilities, leaf, 1), gradients)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", CELLS)
def test_the_expectation_is_the_gradient_of_full_bptt(name, mode):
    problem = make_problem(name, NUM_STEPS, resets=True, mask=True)
    assert relative_error(expectation(problem, mode), bptt_gradient(problem)) < 1e-12


@pytest.mark.parametrize("mode", MODES)
def test_the_same_for_a_function_as_cell(mode):
    problem = as_function(make_problem("lstm", NUM_STEPS, resets=True, mask=True))
    assert relative_error(expectation(problem, mode), bptt_gradient(problem)) < 1e-12


@pytest.mark.parametrize(
    "fault",
    [
        {"law": None},
        {"law": Shifted()},
        {"change": lambda rows: np.maximum(rows - 1, 1)},
        {"change": lambda rows: np.minimum(rows, 2)},
        {"drop_last": True},
    ],
    ids=["no compensation", "one edge off", "one window too few", "capped", "remainder dropped"],
)
def test_a_planted_fault_is_seen(fault):
    problem = make_problem("rnn", NUM_STEPS)
    assert relative_error(expectation(problem, "stored", **fault), bptt_gradient(problem)) > 0.01


def build(problem, law, length=LENGTH, **options):
    return artbp.unbiased_tbptt(
        problem.cell, problem.loss_fn, law, truncation_length=length, **options
    )


def gradients_of(estimator, problem, update=sgd):
    """The gradients of all estimates of one pass, with an update after each."""
    found = []

    def record(params, grads):
        found.append(grads)
        return update(params, grads)

    one_pass(estimator, problem, update=record)
    return found


def assert_same(found, expected, tolerance=1e-12):
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert relative_error(one, other) < tolerance


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", ["lstm", "gru"])
def test_looking_back_one_window_is_truncated_bptt(name, mode):
    problem = make_problem(name, 13, resets=True, mask=True)
    tbptt = artbp.tbptt(problem.cell, problem.loss_fn, truncation_length=3)
    found = gradients_of(build(problem, truncation.fixed(1), 3, mode=mode), problem)
    assert_same(found, gradients_of(tbptt, problem))


@pytest.mark.parametrize("m", [2, 3])
@pytest.mark.parametrize("storage", [{}, SMALL])
def test_looking_back_m_windows_is_tbptt_k1_k2(m, storage):
    """With an update after each window; a function as cell is linearised at its stored carries."""
    problem = as_function(make_problem("gru", 13, resets=True, mask=True))
    k1_k2 = artbp.tbptt_k1_k2(problem.cell, problem.loss_fn, k1=3, k2=3 * m)
    mode = "reforward" if storage else "stored"
    frozen = lambda params, grads: params  # noqa: E731
    # Modes differ once weights change, except where the residuals are those of all m windows.
    update = frozen if storage else sgd
    law = truncation.fixed(m)
    found = gradients_of(build(problem, law, 3, mode=mode, **storage), problem, update)
    expected = gradients_of(k1_k2, problem, update)
    # The last, shorter window of TBPTT(k1, k2) reaches 3 m steps back, here m windows.
    assert_same(found[:-1], expected[:-1])
    with pytest.raises(AssertionError):  # the control: m matters
        other = build(problem, truncation.fixed(m - 1), 3, mode=mode, **storage)
        assert_same(gradients_of(other, problem, update)[:-1], expected[:-1])


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("carries", [2, 4])
@pytest.mark.parametrize("length", [1, 4, 13, 20])
def test_without_a_law_it_is_full_bptt(mode, carries, length):
    """On 13 steps: windows of one step halve the anchors twice; one window is the stream."""
    problem = make_problem("lstm", 13, resets=True, mask=True)
    storage = {"stored_windows": 2, "stored_carries": carries}
    estimator = build(problem, truncation.never(), length, mode=mode, **storage)
    total, infos, state = one_pass(estimator, problem)
    assert relative_error(total, bptt_gradient(problem)) < 1e-12
    expected = list(range(1, len(infos) + 1))
    assert [int(info.extra["look_back"]) for info in infos] == expected
    # The second pass begins with nothing behind it.
    again, _ = artbp.run_pass(estimator, problem.params, state, problem.stream)
    assert relative_error(again, total) < 1e-12


class Twin:
    """Each window as a function of params and the carry that entered it, by `jax.vjp`."""

    def __init__(self, problem, length):
        self.problem, self.length = problem, length

    def run(self, params, carry, n):
        stream, problem = self.problem.stream, self.problem
        total = 0.0
        for t in range(n * self.length, min((n + 1) * self.length, stream.num_steps)):
            flags = stream.resets[t][:, None]
            carry = jax.tree.map(lambda s, f=flags: jnp.where(f, jnp.zeros_like(s), s), carry)
            carry, y = problem.cell(params, carry, stream.xs[t])
            losses = problem.loss_fn(params, y, stream.targets[t])
            total += jnp.sum(jnp.where(stream.mask[t], losses, 0.0))
        return carry, total

    def gradients(self, rows, update):
        """Mode "reforward": older windows run again, with the params of now, from their carry."""
        params, carry, entering, found = self.problem.params, self.problem.carry, [], []
        for n, look_back in enumerate(rows):
            entering.append(carry)
            (carry, _), pull_back = jax.vjp(lambda p, c, n=n: self.run(p, c, n), params, carry)
            zero = jax.tree.map(jnp.zeros_like, carry)
            gradient, flow = pull_back((zero, 1.0))
            for j in range(1, look_back):
                _, pull_back = jax.vjp(
                    lambda p, c, m=n - j: self.run(p, c, m), params, entering[n - j]
                )
                gate = LAW.compensation(j)
                more, flow = pull_back((jax.tree.map(lambda x, g=gate: g * x, flow), 0.0))
                gradient = jax.tree.map(jnp.add, gradient, more)
            found.append(gradient)
            params = update(params, gradient)
        return found


def test_windows_are_run_again_with_the_params_of_now():
    """Look-backs, gates and weights window by window, with an update after each."""
    problem = make_problem("lstm", NUM_STEPS, resets=True, mask=True)
    rows = [1, 2, 1, 4, 3]
    estimator = build(problem, truncation.replay(rows, LAW), mode="reforward")
    expected = Twin(problem, LENGTH).gradients(rows, sgd)
    assert_same(gradients_of(estimator, problem), expected)
    # The control: with the residuals of the old params the numbers differ, but little.
    stored = gradients_of(build(problem, truncation.replay(rows, LAW)), problem)
    assert 1e-6 < relative_error(stored[3], expected[3]) < 0.5
    _, infos, _ = one_pass(estimator, problem)
    assert [int(info.length) for info in infos] == [2, 2, 2, 2, 1]
    weights = [np.prod(LAW.compensation(np.arange(1, a))) for a in rows]
    np.testing.assert_allclose([info.max_weight for info in infos], weights, rtol=1e-12)


def test_the_loops_of_a_short_last_window_do_not_run_on():
    """Twelve steps more of this cell would overflow, and 0 · ∞ is NaN."""

    def cell(params, carry, x):
        carry = 1e30 * params * carry + x
        return carry, carry

    def loss_fn(params, y, target):
        return 1e-60 * (y - target) ** 2

    xs = jnp.ones((21, 2))
    estimator = artbp.unbiased_tbptt(cell, loss_fn, truncation.fixed(1), truncation_length=20)
    state = estimator.init(jnp.array(1e-30), jnp.zeros(2), rng_key=jax.random.key(0))
    stream = artbp.Stream(xs, xs)
    _, state, _ = estimator.estimate(jnp.array(1e-30), state, stream)
    grads, _, info = estimator.estimate(jnp.array(1.0), state, stream)
    assert int(info.length) == 1
    assert jnp.isfinite(grads)


def test_a_law_that_ignores_the_limit():
    """A look-back never goes beyond the beginning of the stream."""

    class Far(type(truncation.fixed(1))):
        def length_of(self, rng_key, n, limit=None):
            return jnp.int32(100)

        def hazard(self, k):
            return 0 * as_ages(k)

    problem = make_problem("rnn", 9)
    total, _, _ = one_pass(build(problem, Far(1), stored_windows=2, stored_carries=4), problem)
    assert relative_error(total, bptt_gradient(problem)) < 1e-12


def test_look_backs_are_drawn_from_the_law():
    """The draws of the estimator itself, by its key, beside the survival."""
    law = truncation.geometric(1.5)
    problem = make_problem("linear", 4000, batch=1)
    _, infos, _ = one_pass(build(problem, law, 2), problem)
    drawn = np.array([int(info.extra["look_back"]) for info in infos])
    key, expected = jax.random.key(1), []
    for n in range(len(drawn)):
        expected.append(int(law.length_of(key, n, n + 1)))
    np.testing.assert_array_equal(drawn, expected)
    assert abs(np.mean(drawn > 1) - law.survival(1)) < 4 * np.sqrt(2 / 9 / len(drawn))


def test_vmap_over_keys_is_a_loop_over_keys():
    problem = make_problem("gru", NUM_STEPS, resets=True, mask=True)
    estimator = build(problem, LAW, **SMALL)
    run = lambda key: artbp.run_pass(  # noqa: E731
        estimator,
        problem.params,
        estimator.init(problem.params, problem.carry, rng_key=key),
        problem.stream,
    )[0]
    keys = jax.random.split(jax.random.key(3), 6)
    together = jax.jit(jax.vmap(run))(keys)
    for i, key in enumerate(keys):
        one = jax.tree.map(lambda leaf, i=i: leaf[i], together)
        assert relative_error(one, run(key)) < 1e-12


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"truncation_length": 0}, "truncation_length=0"),
        ({"mode": "fast"}, "'stored', 'reforward'|stored, reforward"),
        ({"stored_windows": 0}, "stored_windows=0"),
        ({"stored_carries": 1.5}, "stored_carries=1.5"),
    ],
)
def test_options_that_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        artbp.unbiased_tbptt(None, None, LAW, **{"truncation_length": 5, **options})
    with pytest.raises(TypeError, match="truncation law"):
        artbp.unbiased_tbptt(None, None, 5, truncation_length=5)


def test_a_traced_hazard_needs_the_numbers_of_windows():
    problem = make_problem("rnn", 6)

    class Traced(truncation.TruncationLaw):
        def __init__(self, hazard):
            self._hazard = hazard

        def hazard(self, k):
            return self._hazard + 0.0 * as_ages(k)

    def lengths(hazard, **options):
        estimator = artbp.unbiased_tbptt(
            problem.cell, problem.loss_fn, Traced(hazard), truncation_length=2, **options
        )
        state = estimator.init(problem.params, problem.carry, rng_key=jax.random.key(0))
        return estimator.estimate(problem.params, state, problem.stream)[2].length

    hazards = jnp.array([0.1, 0.5])
    with pytest.raises(ValueError, match="both stored_windows and stored_carries"):
        jax.vmap(lengths)(hazards)
    found = jax.vmap(lambda h: lengths(h, stored_windows=2, stored_carries=4))(hazards)
    np.testing.assert_array_equal(found, 2)
