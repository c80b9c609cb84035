"""The clipping report equals a plain loop, and enumeration of all boundary patterns."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from problems import bptt_gradient, lengths, make_problem, one_pass, patterns, probability

import artbp
from artbp import truncation
from artbp.contrib.clipping import clipping_report, clipping_reports

pytestmark = pytest.mark.usefixtures("float64")

LAW = truncation.polynomial(3, 4)


def clipped(gradient, max_norm=None, max_value=None):
    """Clips a flat gradient by hand."""
    if max_value is not None:
        return np.clip(gradient, -max_value, max_value)
    return gradient / max(1.0, np.linalg.norm(gradient) / max_norm)


def compared(c, r):
    """Returns (relative norm, cosine, projection, relative bias)."""
    cosine = c @ r / np.linalg.norm(c) / np.linalg.norm(r)
    ratio = np.linalg.norm(c) / np.linalg.norm(r)
    return ratio, cosine, ratio * cosine, np.linalg.norm(c - r) / np.linalg.norm(r)


def report(problem, estimator, keys, **options):
    return clipping_report(
        estimator, problem.params, problem.carry, problem.stream, keys, **options
    )


def test_the_report_is_that_of_a_plain_loop():
    problem = make_problem("rnn", 20, mask=True)
    estimator = artbp.artbp(problem.cell, problem.loss_fn, LAW, block_size=4)
    keys = jax.random.split(jax.random.key(1), 3)
    reference = jax.jit(lambda: bptt_gradient(problem))()
    passes, lengths_of = [], []
    for key in keys:
        gradients = []

        def keep(params, grads, gradients=gradients):
            gradients.append(np.asarray(ravel_pytree(grads)[0]))
            return params

        _, infos, _ = one_pass(estimator, problem, key, update=keep)
        passes.append(np.array(gradients))
        lengths_of += [int(info.length) for info in infos]
    thresholds = [{"max_norm": 3.0}, {"max_value": 0.8}, {"max_norm": 1.0}]
    given = problem.params, problem.carry, problem.stream, keys, thresholds
    reports = clipping_reports(estimator, *given, reference=reference)
    for threshold, found in zip(thresholds, reports, strict=True):
        by_hand = [np.array([clipped(g, **threshold) for g in gradients]) for gradients in passes]
        check_means(found, by_hand, passes, np.asarray(ravel_pytree(reference)[0]))
        norm = np.linalg.norm(np.concatenate(passes), axis=1)
        lost = np.linalg.norm(np.concatenate(passes) - np.concatenate(by_hand), axis=1)
        check_tallies(found, np.array(lengths_of), norm, lost)


def check_means(found, by_hand, passes, reference):
    clipped_sums = np.array([rows.sum(axis=0) for rows in by_hand])
    means = clipped_sums.mean(axis=0), np.mean([rows.sum(axis=0) for rows in passes], axis=0)
    np.testing.assert_allclose(found.against_unclipped, compared(*means), rtol=1e-9)
    np.testing.assert_allclose(found.against_reference, compared(means[0], reference), rtol=1e-9)
    # The projection is linear in the clipped sums, so its error is that of a mean.
    projections = clipped_sums @ reference / (reference @ reference)
    np.testing.assert_allclose(
        found.against_reference_error.projection,
        np.std(projections, ddof=1) / np.sqrt(len(projections)),
    )


def check_tallies(found, length, norm, lost):
    np.testing.assert_allclose(found.share_bound, np.mean(lost > 0))
    assert 0 < found.share_bound < 1
    np.testing.assert_allclose(found.norm_lost, lost.sum() / norm.sum())
    bins = found.by_length
    np.testing.assert_array_equal(bins.shortest, [1, 2, 4, 8, 16])
    for i, shortest in enumerate(bins.shortest):
        inside = (shortest <= length) & (length < 2 * shortest)
        assert bins.count[i] == inside.sum()
        np.testing.assert_allclose(bins.share_of_steps[i], length[inside].sum() / length.sum())
        if inside.any():
            np.testing.assert_allclose(bins.share_bound[i], np.mean(lost[inside] > 0))
            np.testing.assert_allclose(bins.norm_lost[i], lost[inside].sum() / norm[inside].sum())
        else:
            assert np.isnan(bins.share_bound[i])


def segment_gradients(problem, num_steps):
    """Returns segment gradients of every pattern [patterns, T, P] and their probabilities."""
    all_patterns = patterns(num_steps)
    rows = [(*lengths(p), *[1] * num_steps)[:num_steps] for p in all_patterns]

    def one_pattern(row):
        law = truncation.replay(row, LAW)
        estimator = artbp.artbp(problem.cell, problem.loss_fn, law, block_size=3)

        def segment(loop, _):
            state, done = loop
            grads, state, info = estimator.estimate(problem.params, state, problem.stream)
            flat = jnp.where(done, 0.0, ravel_pytree(grads)[0])
            return (state, done | info.end_of_stream), flat

        state = estimator.init(problem.params, problem.carry, rng_key=jax.random.key(0))
        return jax.lax.scan(segment, (state, jnp.asarray(False)), length=num_steps)[1]

    gradients = jax.jit(jax.vmap(one_pattern))(jnp.asarray(rows, jnp.int32))
    return np.asarray(gradients), np.array([probability(p, LAW) for p in all_patterns])


def test_the_bias_of_clipping_is_the_enumerated_one():
    """4000 keys, intervals of four standard errors: false alarm rate below 1e-4."""
    num_steps, max_norm = 6, 2.0
    problem = make_problem("rnn", num_steps)
    reference = jax.jit(lambda: bptt_gradient(problem))()
    exact = np.asarray(ravel_pytree(reference)[0])
    gradients, weights = segment_gradients(problem, num_steps)
    norms = np.linalg.norm(gradients, axis=-1, keepdims=True)
    by_hand = gradients / np.maximum(1, norms / max_norm)
    expected = np.array(compared(weights @ by_hand.sum(axis=1), exact)[:3])
    estimator = artbp.artbp(problem.cell, problem.loss_fn, LAW, block_size=4)
    keys = jax.random.split(jax.random.key(2), 4000)
    found = report(problem, estimator, keys, max_norm=max_norm, reference=reference)
    value, error = np.array(found.against_reference), np.array(found.against_reference_error)
    np.testing.assert_array_less(np.abs(value[:3] - expected), 4 * error[:3])
    # Controls: the projection differs from 1, which unclipped gradients have.
    assert abs(value[2] - 1) > 10 * error[2]
    np.testing.assert_allclose(weights @ gradients.sum(axis=1), exact, rtol=1e-10)


def test_no_threshold_no_bias():
    """The same numbers are summed, so equality is exact; deterministic TBPTT needs one key."""
    problem = make_problem("rnn", 12)
    estimator = artbp.tbptt(problem.cell, problem.loss_fn, truncation_length=5)
    found = report(problem, estimator, jax.random.split(jax.random.key(0), 1), max_norm=np.inf)
    np.testing.assert_allclose(found.against_unclipped, (1, 1, 1, 0), rtol=1e-15)
    assert found.against_unclipped.relative_bias == 0
    assert found.share_bound == 0
    assert found.norm_lost == 0
    assert found.against_reference is None
    assert np.isnan(found.against_unclipped_error).all()
    np.testing.assert_array_equal(found.by_length.count, [0, 1, 2, 0])  # lengths 5, 5, 2


def test_bad_clipping_arguments():
    problem = make_problem("rnn", 6)
    estimator = artbp.tbptt(problem.cell, problem.loss_fn, truncation_length=3)
    keys = jax.random.split(jax.random.key(0), 2)
    for thresholds in ({}, {"max_norm": 1.0, "max_value": 1.0}):
        with pytest.raises(ValueError, match="exactly one"):
            report(problem, estimator, keys, **thresholds)
    for bad in (0.0, -1.0, np.nan):
        with pytest.raises(ValueError, match="max_value="):
            report(problem, estimator, keys, max_value=bad)
    with pytest.raises(ValueError, match="rng_keys"):
        report(problem, estimator, keys[0], max_norm=1.0)
    with pytest.raises(ValueError, match="reference"):
        report(problem, estimator, keys, max_norm=1.0, reference={"a": jnp.ones(3)})


def test_gradients_that_are_nan_are_not_counted_as_clipped():
    problem = make_problem("rnn", 8)
    stream = artbp.Stream(problem.stream.xs.at[3].set(jnp.nan), problem.stream.targets)
    estimator = artbp.tbptt(problem.cell, problem.loss_fn, truncation_length=4)
    keys = jax.random.split(jax.random.key(0), 2)
    found = report(problem._replace(stream=stream), estimator, keys, max_norm=1.0)
    assert np.isnan(found.share_bound) and np.isnan(found.norm_lost)


def test_a_reference_has_to_be_like_params():
    problem = make_problem("rnn", 8)
    estimator = artbp.tbptt(problem.cell, problem.loss_fn, truncation_length=4)
    reference = dict(problem.params)
    reference["other"] = reference.pop(next(iter(reference)))
    keys = jax.random.split(jax.random.key(0), 2)
    with pytest.raises(ValueError, match="reference has the structure"):
        report(problem, estimator, keys, max_norm=1.0, reference=reference)
