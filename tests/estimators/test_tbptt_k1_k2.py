"""TBPTT(k1, k2) against its definition, written forward in time with explicit Jacobians."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from problems import make_problem, one_pass, relative_error

import artbp

NUM_STEPS = 13  # no multiple of any k1 or k2 here but 1
RATE = 0.05
MODES = ("stored", "past_weights", "reforward")


def make():
    return make_problem("rnn", NUM_STEPS, batch=2, resets=True, mask=True)


def sgd(params, grads):
    return jax.tree.map(lambda p, g: p - RATE * g, params, grads)


class Twin:
    """Everything by full Jacobians of one step, at flat params and a flat carry."""

    def __init__(self, problem):
        self.problem = problem
        flat_params, self.to_params = ravel_pytree(problem.params)
        flat_carry, self.to_carry = ravel_pytree(problem.carry)
        self.params, self.carry = flat_params, flat_carry
        self.step = jax.jit(self._step)
        self.jacobians = jax.jit(jax.jacrev(self._step, argnums=(0, 1)))
        self.readout = jax.jit(jax.grad(self._loss))

    def _y(self, params, carry, t):
        stream = self.problem.stream
        flags = stream.resets[t][:, None]
        carry = jnp.where(flags, 0.0, self.to_carry(carry))
        return self.problem.cell(self.to_params(params), carry, stream.xs[t])

    def _loss(self, params, y, t):
        stream = self.problem.stream
        losses = self.problem.loss_fn(self.to_params(params), y, stream.targets[t])
        return jnp.sum(jnp.where(stream.mask[t], losses, 0.0))

    def _step(self, params, carry, t):
        new_carry, y = self._y(params, carry, t)
        return ravel_pytree(new_carry)[0], self._loss(params, y, t)

    def run(self, k1, k2, mode, losses, update):
        """The gradients of all updates of one pass."""
        params, carry, gradients = self.params, self.carry, []
        carries, ran_with = {}, {}
        for first in range(0, NUM_STEPS, k1):
            end = min(first + k1, NUM_STEPS)
            start = max(end - k2, first if k2 <= k1 else 0)
            if mode == "reforward" and start < first:
                carry, begin = carries[start], start
            else:
                begin = first
            for t in range(begin, end):
                carries[t], ran_with[t] = carry, params
                carry, _ = self.step(params, carry, t)
            gradient = np.zeros(params.size)
            for t in range(first, start):  # too old for the window: the readout alone
                y = self._y(params, carries[t], t)[1]
                gradient += self.readout(params, y, t)
            influence = np.zeros((carry.size, params.size))
            for t in range(start, end):
                at = ran_with[t] if mode == "past_weights" else params
                (state_by_params, state_by_carry), loss_by = self.jacobians(at, carries[t], t)
                weight = k1 / k2 if losses == "window" and k2 > k1 else float(t >= first)
                gradient += weight * (loss_by[0] + loss_by[1] @ influence)
                influence = state_by_carry @ influence + state_by_params
            gradients.append(gradient)
            params = update(params, gradient)
        return gradients


@pytest.fixture(scope="module")
def twin():
    with jax.enable_x64(True):
        return Twin(make())


def gradients_of(problem, update, **options):
    """The same by the estimator, flat."""
    estimator = artbp.tbptt_k1_k2(problem.cell, problem.loss_fn, **options)
    found = []

    def record_and_update(params, grads):
        found.append(ravel_pytree(grads)[0])
        return update(params, grads)

    _, infos, _ = one_pass(estimator, problem, update=record_and_update)
    assert sum(int(info.length) for info in infos) == NUM_STEPS
    return found


OVERLAPPING = [
    (k1, k2, mode, losses)
    for k1 in (1, 2, 3, 5)
    for k2 in (1, 2, 3, 5, 8)
    for mode in MODES
    for losses in ("new", "window")
    # The weights of the losses do not depend on the mode: all of them at two windows is enough.
    if k2 > k1 and (losses == "new" or mode == "stored" or (k1, k2) in [(2, 5), (3, 8)])
]
OTHERS = [(k1, k2, "stored", "new") for k1 in (1, 2, 3, 5) for k2 in (1, 2, 3, 5) if k2 <= k1]


@pytest.mark.parametrize(
    ("k1", "k2", "mode", "losses"),
    [
        pytest.param(*case, marks=[pytest.mark.slow] if case[0] == 3 else [])
        for case in OVERLAPPING + OTHERS
    ],
)
def test_equals_its_definition(k1, k2, mode, losses, twin, float64):
    """With an update after each estimate, so that the modes differ."""
    found = gradients_of(twin.problem, sgd, k1=k1, k2=k2, mode=mode, losses=losses)
    expected = twin.run(k1, k2, mode, losses, lambda params, grads: params - RATE * grads)
    assert len(found) == len(expected) == -(-NUM_STEPS // k1)
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(("k1", "k2"), [(3, 3), (1, 1), (5, 1), (3, 2)])
def test_the_modes_are_one_where_windows_do_not_overlap(k1, k2, float64):
    """k2 ≤ k1, also at the last update, which has fewer new steps."""
    problem = make()
    stored, *others = (gradients_of(problem, sgd, k1=k1, k2=k2, mode=mode) for mode in MODES)
    for other in others:
        np.testing.assert_allclose(other, stored, rtol=1e-13, atol=1e-14)


def test_the_modes_differ_where_windows_overlap(float64):
    """The control: without it, the test above could pass for modes that are never told apart."""
    problem = make()
    stored, past, reforward = (gradients_of(problem, sgd, k1=1, k2=5, mode=mode) for mode in MODES)
    assert relative_error(past, stored) > 1e-3
    assert relative_error(reforward, stored) > 1e-3
    frozen = [
        gradients_of(problem, lambda params, grads: params, k1=1, k2=5, mode=mode) for mode in MODES
    ]
    assert relative_error(frozen[1], frozen[0]) < 1e-13
    assert relative_error(frozen[2], frozen[0]) < 1e-13


def test_k1_equal_to_k2_is_tbptt(float64):
    """To the end of a stream that has a remainder."""
    problem = make_problem("lstm", NUM_STEPS, resets=True, mask=True)
    ours, _, _ = one_pass(artbp.tbptt_k1_k2(problem.cell, problem.loss_fn, k1=4, k2=4), problem)
    theirs, _, _ = one_pass(
        artbp.tbptt(problem.cell, problem.loss_fn, truncation_length=4), problem
    )
    assert relative_error(ours, theirs) < 1e-13


def test_a_window_as_long_as_the_stream_is_bptt(float64):
    problem = make_problem("gru", 12, resets=True)
    ours, _, _ = one_pass(artbp.tbptt_k1_k2(problem.cell, problem.loss_fn, k1=1, k2=12), problem)
    theirs, _, _ = one_pass(artbp.bptt(problem.cell, problem.loss_fn), problem)
    assert relative_error(ours, theirs) < 1e-13


@pytest.mark.optimised
@pytest.mark.parametrize("mode", MODES)
def test_memory_does_not_grow_with_the_stream(mode):
    """Temporaries of the compiled program, k1 = 1, k2 = 64; inputs aside."""

    def temporaries(num_steps):
        problem = make_problem("lstm", num_steps)
        estimator = artbp.tbptt_k1_k2(problem.cell, problem.loss_fn, k1=1, k2=64, mode=mode)
        state = estimator.init(problem.params, problem.carry, rng_key=jax.random.key(0))
        step = jax.jit(estimator.estimate, donate_argnums=1)
        compiled = step.lower(problem.params, state, problem.stream).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    short, long = temporaries(128), temporaries(8192)
    assert short == long
    assert short > 0


def test_rows_of_different_streams_under_vmap(float64):
    """Each row as if alone: nothing of a window is shared."""
    problems = [make_problem("rnn", 9, seed=seed) for seed in (0, 1)]
    estimator = artbp.tbptt_k1_k2(problems[0].cell, problems[0].loss_fn, k1=2, k2=5)

    def run(params, carry, stream):
        state = estimator.init(params, carry, rng_key=jax.random.key(0))

        def step(state, _):
            grads, state, _ = estimator.estimate(params, state, stream)
            return state, grads

        return jax.lax.scan(step, state, length=7)[1]  # into the second pass

    alone = [run(p.params, p.carry, p.stream) for p in problems]
    together = jax.vmap(run)(
        *(
            jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)
            for trees in zip(*((p.params, p.carry, p.stream) for p in problems), strict=True)
        )
    )
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *alone)
    assert relative_error(together, stacked) < 1e-13


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"k1": 0, "k2": 3}, "k1=0"),
        ({"k1": 2, "k2": 1.5}, "k2=1.5"),
        ({"k1": 2, "k2": 3, "mode": "replay"}, "mode='replay'"),
        ({"k1": 2, "k2": 3, "losses": "all"}, "losses='all'"),
    ],
)
def test_bad_options(options, word):
    problem = make_problem()
    with pytest.raises(ValueError, match=word):
        artbp.tbptt_k1_k2(problem.cell, problem.loss_fn, **options)
