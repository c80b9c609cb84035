"""Couplings are unbiased by enumeration of every joint pattern of two rows.

The j-th lengths of two rows are piecewise constant in the uniforms that they are made from, so
their joint law is a finite sum over the pieces, and that of the boundaries a finite recursion.
"""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from problems import ages, bptt_gradient, gated_gradient, make_problem, patterns, probability

from artbp import truncation
from artbp.contrib import couplings

pytestmark = pytest.mark.usefixtures("float64")

NUM_STEPS = 5
LAW = truncation.polynomial(3, 4)
COUPLINGS = ("shared", "independent", "antithetic", "stratified")
ORDERS = {"stratified": ([0, 1], [1, 0]), "in order": ([0, 1],)}


def gates_of_patterns():
    """Returns the gates of all patterns, [patterns, T]."""
    return np.array([np.where(p, 0.0, LAW.compensation(ages(p))) for p in patterns(NUM_STEPS)])


def pieces(breakpoints):
    """Returns (midpoint, width) of the pieces of (0, 1] between the breakpoints."""
    edges = np.unique([0.0, 1.0, *(b for b in breakpoints if 0 < b < 1)])
    return [((a + b) / 2, b - a) for a, b in itertools.pairwise(edges)]


def joint_lengths(coupling):
    """Returns [(length of row 0, length of row 1, probability)].

    The functions with which the library draws are evaluated at the midpoint of each piece.
    """
    survival = LAW.survival(np.arange(1, NUM_STEPS + 1))
    probabilities = -np.diff([1.0, *survival[:-1], 0.0])  # the last: at least this length
    alone = [*enumerate(probabilities, start=1)]
    if coupling == "shared":
        return [(k, k, p) for k, p in alone]
    if coupling == "independent":
        return [(i, j, p * q) for (i, p), (j, q) in itertools.product(alone, alone)]
    if coupling == "antithetic":
        parts = pieces([*2 * survival, *2 * (1 - survival)])
        draws = itertools.product(parts, [False, True])
        points = [(u, swap, width / 2) for (u, width), swap in draws]
        u, swap, chances = map(np.array, zip(*points, strict=True))
        uniforms = couplings.antithetic_uniforms(jnp.float32(u), swap).T
    else:
        orders = ORDERS[coupling]
        parts = pieces([*2 * survival, *(2 * survival - 1)])
        draws = itertools.product(parts, parts, orders)
        points = [((u, v), order, p * q / len(orders)) for (u, p), (v, q), order in draws]
        u, order, chances = map(np.array, zip(*points, strict=True))
        uniforms = jax.vmap(couplings.stratified_uniforms)(jnp.float32(u), order)
    lengths = np.minimum(LAW.length_at(uniforms), NUM_STEPS)
    return [(*pair, p) for pair, p in zip(lengths.tolist(), chances.tolist(), strict=True)]


@functools.cache
def joint_patterns(coupling):
    """Computes P(row 0 has pattern i, row 1 pattern j), [i, j] over `patterns(NUM_STEPS)`."""
    one_segment = {}
    for i, j, p in joint_lengths(coupling):
        one_segment[i, j] = one_segment.get((i, j), 0.0) + p
    found = {((), ()): 1.0}  # the boundaries of both rows so far
    for _ in range(NUM_STEPS):
        further = {}
        for (rows, p), (lengths, q) in itertools.product(found.items(), one_segment.items()):
            key = tuple(
                row if row[-1:] == (NUM_STEPS,) else (*row, min(sum(row[-1:]) + length, NUM_STEPS))
                for row, length in zip(rows, lengths, strict=True)
            )
            further[key] = further.get(key, 0.0) + p * q
        found = further
    all_patterns = patterns(NUM_STEPS)
    index = {tuple((np.flatnonzero(p) + 1).tolist()): i for i, p in enumerate(all_patterns)}
    joint = np.zeros((len(index), len(index)))
    for (first, second), p in found.items():
        joint[index[first], index[second]] = p
    np.testing.assert_allclose(joint.sum(), 1, rtol=1e-13)
    return joint


@pytest.fixture(scope="module")
def rows():
    """Returns gradients for all pairs of patterns of two similar rows [i, j, P], and BPTT's."""
    with jax.enable_x64(True):
        problem = make_problem("rnn", NUM_STEPS, batch=2)
        alike = jax.tree.map(lambda x: x.at[:, 1].set(0.9 * x[:, 0]), problem.stream)
        problem = problem._replace(stream=alike)
        of_row = gates_of_patterns()
        pairs = itertools.product(of_row, repeat=2)
        gates = jnp.asarray([np.stack(pair, axis=1) for pair in pairs])

        @jax.jit
        def gradients(gates):
            each = jax.vmap(lambda g: ravel_pytree(gated_gradient(problem, g))[0])(gates)
            return each, ravel_pytree(bptt_gradient(problem))[0]

        each, exact = map(np.asarray, gradients(gates))
        return each.reshape(len(of_row), len(of_row), -1), exact


def moments(coupling, rows):
    """Computes the exact relative bias of the summed gradient and its exact trace."""
    gradients, exact = rows
    joint = joint_patterns(coupling)
    mean = np.tensordot(joint, gradients, 2)
    trace = np.sum(joint * np.sum((gradients - exact) ** 2, axis=-1))
    return np.linalg.norm(mean - exact) / np.linalg.norm(exact), trace


@pytest.fixture(scope="module")
def sampled():
    """Draws gates of 20,000 keys under each coupling, [keys, T, 2]."""

    def gates(coupling):
        def draw(key):
            return couplings.sample_row_gates(LAW, key, NUM_STEPS, 2, coupling)

        return np.asarray(jax.jit(jax.vmap(draw))(jax.random.split(jax.random.key(3), 20_000)))

    with jax.enable_x64(True):
        return {coupling: gates(coupling) for coupling in COUPLINGS}


def pattern_indices(gates):
    """Returns the index in `patterns` of the zeros of gates [..., T] without the last."""
    return (gates[..., :-1] == 0) @ (2 ** np.arange(NUM_STEPS - 2, -1, -1))


@pytest.mark.parametrize("coupling", COUPLINGS)
def test_every_coupling_is_unbiased_and_has_the_enumerated_variance(coupling, rows, sampled):
    """The enumerated bias is zero; the sampled trace is within five standard errors."""
    bias, trace = moments(coupling, rows)
    assert bias < 1e-12
    gradients, exact = rows
    indices = pattern_indices(np.moveaxis(sampled[coupling], 1, 2))
    squared = np.sum((gradients[tuple(indices.T)] - exact) ** 2, axis=-1)
    error = 5 * squared.std() / np.sqrt(squared.size)
    assert abs(squared.mean() - trace) < error
    # The control: the trace of another coupling is rejected.
    other = {"shared": "antithetic", "independent": "shared", "stratified": "independent"}
    assert abs(squared.mean() - moments(other.get(coupling, "shared"), rows)[1]) > error


def test_strata_in_a_fixed_order_are_seen(rows):
    """A control: if row 0 is always long and row 1 always short, the gradient is biased."""
    bias, _ = moments("in order", rows)
    assert bias > 0.01


@pytest.mark.parametrize("coupling", COUPLINGS)
def test_boundaries_have_the_joint_law(coupling, sampled):
    """χ² tests of each row and of both, on 20,000 draws, false alarm rate 1e-4 each."""
    from scipy.stats import chisquare

    def p_value(indices, expected):
        observed = np.bincount(indices, minlength=expected.size)
        assert observed[expected == 0].sum() == 0
        kept = expected * indices.size >= 5
        observed = np.append(observed[kept], observed[~kept].sum())
        expected = np.append(expected[kept], expected[~kept].sum() + 1e-12)
        return chisquare(observed, expected * indices.size, sum_check=False).pvalue

    alone = np.array([probability(row, LAW) for row in patterns(NUM_STEPS)])
    joint = joint_patterns(coupling)
    np.testing.assert_allclose([joint.sum(0), joint.sum(1)], [alone, alone], atol=1e-14)
    gates = sampled[coupling]
    first, second = pattern_indices(gates[:, :, 0]), pattern_indices(gates[:, :, 1])
    for row, indices in enumerate((first, second)):
        assert p_value(indices, alone) > 1e-4
        expected = gates_of_patterns()[indices]
        np.testing.assert_allclose(gates[:, :-1, row], expected[:, :-1], rtol=1e-13)
    assert p_value(alone.size * first + second, joint.ravel()) > 1e-4
    # The control: row 1 of the next key is independent of row 0.
    if coupling != "independent":
        rolled = alone.size * first + np.roll(second, 1)
        outside = joint.ravel()[rolled] == 0
        assert outside.any() or p_value(rolled, joint.ravel()) < 1e-4


def test_rows_draw_as_one_row_does():
    key, n = jax.random.key(5), 20

    @jax.jit
    def draw(key):
        shared = couplings.sample_row_gates(LAW, key, n, 3, "shared")
        independent = couplings.sample_row_gates(LAW, key, n, 3, "independent")
        replayed = couplings.sample_row_gates(truncation.replay([2, 1]), key, n, 3, "shared")
        keys = jnp.stack([key, *jax.random.split(key, 3)])
        alone = jax.vmap(lambda key: LAW.sample_gates(key, n))(keys)
        return shared, independent, replayed, alone

    shared, independent, replayed, alone = draw(key)
    np.testing.assert_allclose(shared, np.repeat(alone[:1], 3, axis=0).T, rtol=1e-14)
    np.testing.assert_allclose(independent, alone[1:].T, rtol=1e-14)
    np.testing.assert_array_equal(replayed[:6, 1], [1, 0, 0, 1, 0, 0])


def test_strata_and_pairs_of_an_odd_number_of_rows():
    """Each stratum has one row, and the last row has no antithetic partner."""
    num_rows = 5
    keys = jax.random.split(jax.random.key(0), 50)

    @jax.jit
    @jax.vmap
    def draw(key):
        return couplings._stratified(key, num_rows), couplings._antithetic(key, num_rows)

    stratified, antithetic = map(np.asarray, draw(keys))
    strata = np.sort(np.ceil(stratified * num_rows), axis=1)
    np.testing.assert_array_equal(strata, np.tile(np.arange(1, num_rows + 1), (50, 1)))
    assert antithetic.shape == (50, num_rows)
    pairs = antithetic[:, :4].reshape(50, 2, 2)
    np.testing.assert_allclose(pairs.sum(axis=2), 1, rtol=1e-6)


def test_antithetic_uniforms_keep_their_tail():
    """Lengths of probability 1e-9 occur in both rows, and no u is 0."""
    u = couplings.antithetic_uniforms(
        jnp.float32([2e-9, 2e-9, 1.0]), jnp.asarray([False, True, False])
    )
    np.testing.assert_allclose(u[0], [1e-9, 1, 0.5], rtol=1e-6)
    np.testing.assert_allclose(u[1], [1, 1e-9, 0.5], rtol=1e-6)


def test_bad_arguments_of_couplings():
    class WithoutQuantiles(truncation.TruncationLaw):
        def hazard(self, k):
            return LAW.hazard(k)

    key = jax.random.key(0)

    def draw(*arguments, law=LAW):  # tracing is enough and faster
        return jax.eval_shape(lambda: couplings.sample_row_gates(law, key, *arguments))

    for arguments, word in (
        ((4, 2, "mirrored"), "coupling='mirrored'"),
        ((4, 0, "shared"), "num_rows=0"),
        ((4.5, 2, "shared"), "num_steps=4.5"),
    ):
        with pytest.raises(ValueError, match=word):
            draw(*arguments)
    with pytest.raises(TypeError, match="law=3"):
        draw(4, 2, "shared", law=3)
    for coupling in ("antithetic", "stratified"):
        with pytest.raises(TypeError, match="WithoutQuantiles has no closed form"):
            draw(4, 2, coupling, law=WithoutQuantiles())
    for coupling in ("shared", "independent"):  # these need no `length_at`
        assert draw(4, 2, coupling, law=WithoutQuantiles()).shape == (4, 2)
