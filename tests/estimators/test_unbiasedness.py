"""Unbiasedness by enumeration: every boundary pattern of a short sequence, with its probability.

The expectation of a gated gradient is a finite sum, so the claim E[g] = BPTT is checked to
round-off, and each way of losing it is shown to be seen by the same check.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from problems import (
    CELLS,
    ages,
    bptt_gradient,
    gated_gradient,
    lengths,
    make_problem,
    patterns,
    probability,
    relative_error,
)

import artbp
from artbp import truncation

pytestmark = pytest.mark.usefixtures("float64")

NUM_STEPS = 9
LAWS = {
    "polynomial 4": truncation.polynomial(3, 4),
    "polynomial 6": truncation.polynomial(3, 6),
    "geometric": truncation.geometric(3),
}
# Every cell with the paper's law, and the LSTM with each.
CASES = [
    pytest.param(name, law, id=f"{name}-{law_name}")
    for name in CELLS
    for law_name, law in LAWS.items()
    if name == "lstm" or law_name == "polynomial 4"
]
TOLERANCE = 1e-12
VISIBLE = 0.01


def expectation(weights, gradients):
    return jax.tree.map(lambda leaf: jnp.tensordot(jnp.asarray(weights), leaf, 1), gradients)


def bias_of_unroll(problem, law, gates_of=None):
    """Relative bias of the gated unroll, over all patterns; gates default to ARTBP's."""
    all_patterns = patterns(NUM_STEPS)
    gates_of = gates_of or (lambda pattern: np.where(pattern, 0.0, law.compensation(ages(pattern))))
    weights = [probability(pattern, law) for pattern in all_patterns]
    gates = jnp.asarray([gates_of(pattern) for pattern in all_patterns])
    np.testing.assert_allclose(sum(weights), 1, rtol=1e-13)
    gradients = jax.vmap(lambda gates: gated_gradient(problem, gates))(gates)
    return relative_error(expectation(weights, gradients), bptt_gradient(problem))


def bias_of_estimator(problem, law, *, cap=NUM_STEPS, by_length=False, shift=0, **options):
    """Relative bias of the streaming estimator, driven by `replay` along every pattern.

    The faults that can be planted: a `cap` on the segment length, a loss divided `by_length`, the
    sampled one, and compensations that are `shift` steps off.
    """
    all_patterns = patterns(NUM_STEPS)
    weights = [probability(pattern, law) for pattern in all_patterns]
    rows = [_replayed(lengths(pattern), cap) for pattern in all_patterns]

    class Shifted(truncation.TruncationLaw):
        def hazard(self, k):
            return law.hazard(k + shift)

    def one_pattern(row):
        estimator = artbp.artbp(
            problem.cell,
            problem.loss_fn,
            truncation.replay(row, Shifted()),
            block_size=3,
            **options,
        )
        state = estimator.init(problem.params, problem.carry, rng_key=jax.random.key(0))

        def segment(total_and_state, _):
            total, state, done = total_and_state
            grads, state, info = estimator.estimate(problem.params, state, problem.stream)
            scale = jnp.where(done, 0.0, 3.0 / info.length.astype(float) if by_length else 1.0)
            total = jax.tree.map(lambda t, g: t + scale * g, total, grads)
            return (total, state, done | info.end_of_stream), None

        start = (jax.tree.map(jnp.zeros_like, problem.params), state, jnp.asarray(False))
        (total, _, done), _ = jax.lax.scan(segment, start, length=NUM_STEPS)
        return total, done

    gradients, done = jax.jit(jax.vmap(one_pattern))(jnp.asarray(rows, jnp.int32))
    assert done.all()
    return relative_error(expectation(weights, gradients), bptt_gradient(problem))


def _replayed(segment_lengths, cap):
    """Segment lengths, each cut into pieces of at most `cap` steps, padded to T entries."""
    pieces = [
        min(cap, length - done) for length in segment_lengths for done in range(0, length, cap)
    ]
    return (pieces + [1] * NUM_STEPS)[:NUM_STEPS]


@pytest.mark.parametrize(("name", "law"), CASES)
def test_the_gated_unroll_is_unbiased(name, law):
    problem = make_problem(name, NUM_STEPS, resets=True, mask=True)
    assert bias_of_unroll(problem, law) < TOLERANCE
    # Without compensation the same sum is off.
    assert bias_of_unroll(problem, law, lambda pattern: np.where(pattern, 0.0, 1.0)) > VISIBLE


@pytest.mark.parametrize(("name", "law"), CASES)
def test_the_streaming_estimator_is_unbiased(name, law):
    problem = make_problem(name, NUM_STEPS)
    assert bias_of_estimator(problem, law) < TOLERANCE


@pytest.mark.parametrize(
    "fault",
    [{"compensate": False}, {"shift": 1}, {"by_length": True}, {"cap": 4}],
    ids=["no compensation", "one step off", "divided by the sampled length", "capped"],
)
@pytest.mark.parametrize("name", ["rnn", "lstm"])
def test_a_planted_fault_is_seen(name, fault):
    problem = make_problem(name, NUM_STEPS)
    assert bias_of_estimator(problem, LAWS["polynomial 4"], **fault) > VISIBLE


@pytest.mark.parametrize("name", CELLS)
def test_gating_the_readout_too_is_seen(name):
    """∂ℓ_t/∂s_t enters ungated; gating y as well is a different, biased, estimator."""
    problem = make_problem(name, NUM_STEPS)
    law = LAWS["polynomial 4"]
    gates = [np.where(p, 0.0, law.compensation(ages(p))) for p in patterns(NUM_STEPS)]
    weights = [probability(p, law) for p in patterns(NUM_STEPS)]
    stream = problem.stream

    def gradient(gates):
        def loss(params):
            _, ys = artbp.unroll(problem.cell, params, problem.carry, stream.xs, gates=gates)
            # A boundary right behind a step cuts its readout as well: the fault.
            ys = jax.vmap(artbp.gate)(ys, jnp.where(gates == 0, 0.0, 1.0))
            losses = jax.vmap(problem.loss_fn, (None, 0, 0))(params, ys, stream.targets)
            return jnp.sum(losses)

        return jax.grad(loss)(problem.params)

    gradients = jax.vmap(gradient)(jnp.asarray(np.stack(gates)))
    assert relative_error(expectation(weights, gradients), bptt_gradient(problem)) > VISIBLE
