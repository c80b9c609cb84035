"""`evaluate`: the losses of a sequence, forward only."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from problems import CELLS, as_function, make_problem, one_pass

import artbp


def close(found, expected):
    chex.assert_trees_all_close(found, expected, rtol=1e-12)


def of(problem, stream=None, carry=None, **options):
    stream = problem.stream if stream is None else stream
    carry = problem.carry if carry is None else carry
    return artbp.evaluate(problem.cell, problem.loss_fn, problem.params, carry, stream, **options)


@pytest.mark.parametrize("name", [*CELLS, "function"])
@pytest.mark.parametrize("chunk_size", [4, 7, 21, 256])
def test_the_sums_are_those_of_the_estimates_of_a_pass(name, chunk_size, float64):
    """With resets and a mask; 21 steps in chunks that divide them and chunks that do not."""
    problem = make_problem("gru" if name == "function" else name, 21, resets=True, mask=True)
    problem = as_function(problem) if name == "function" else problem
    estimator = artbp.tbptt(problem.cell, problem.loss_fn, truncation_length=5)
    _, infos, _ = one_pass(estimator, problem)
    found = of(problem, chunk_size=chunk_size)
    np.testing.assert_allclose(found.loss_sum, sum(info.loss_sum for info in infos), rtol=1e-12)
    assert int(found.num_losses) == sum(int(info.num_losses) for info in infos)
    stream = problem.stream
    carry, _ = artbp.unroll(
        problem.cell, problem.params, problem.carry, stream.xs, resets=stream.resets
    )
    close(found.carry, carry)


def test_a_float_mask_weights_the_losses(float64):
    """Also where the target of a loss of weight 0 is NaN."""
    problem = make_problem("gru", 12)
    weights = np.random.default_rng(0).choice([0.0, 0.25, 1.0, 3.0], (12, 2))
    targets = jnp.where(weights > 0, problem.stream.targets, jnp.nan)
    problem = problem._replace(stream=artbp.Stream(problem.stream.xs, targets, mask=weights))
    _, infos, _ = one_pass(artbp.bptt(problem.cell, problem.loss_fn), problem)
    found = of(problem, chunk_size=5)
    np.testing.assert_allclose(found.loss_sum, infos[0].loss_sum, rtol=1e-12)
    number = np.count_nonzero(weights)
    assert int(found.num_losses) == int(infos[0].num_losses) == number


def test_what_does_not_count_has_no_influence_on_a_gradient(float64):
    """`jax.grad` of the loss, with NaN targets behind the mask; the last chunk is shorter."""
    problem = make_problem("rnn", 7, mask=True)

    @jax.jit
    def gradient(targets):
        stream = artbp.Stream(problem.stream.xs, targets, mask=problem.stream.mask)

        def loss(params):
            return of(problem._replace(params=params), stream, chunk_size=4).loss_sum

        return jax.grad(loss)(problem.params)

    targets = problem.stream.targets
    found = gradient(jnp.where(problem.stream.mask, targets, jnp.nan))
    close(found, gradient(targets))


def test_the_initial_carry_enters_at_resets(float64):
    problem = make_problem("lstm", 12, resets=True)
    initial = jax.tree.map(lambda leaf: leaf - 0.8, problem.carry)
    estimator = artbp.bptt(problem.cell, problem.loss_fn)
    options = {"rng_key": jax.random.key(0), "initial_carry": initial}
    state = estimator.init(problem.params, problem.carry, **options)
    _, _, info = estimator.estimate(problem.params, state, problem.stream)
    found = of(problem, initial_carry=initial, chunk_size=5)
    np.testing.assert_allclose(found.loss_sum, info.loss_sum, rtol=1e-12)
    assert abs(found.loss_sum - of(problem).loss_sum) > 1e-3


def test_jit_and_vmap(float64):
    """Over params, and with NumPy arrays in the stream."""
    problem = make_problem("lstm", 10, resets=True, mask=True)
    problem = problem._replace(stream=jax.tree.map(np.asarray, problem.stream))
    function = functools.partial(artbp.evaluate, problem.cell, problem.loss_fn, chunk_size=4)
    params = jax.tree.map(lambda leaf: jnp.stack([0.5 * leaf, leaf]), problem.params)
    mapped = jax.jit(jax.vmap(function, (0, None, None)))(params, problem.carry, problem.stream)
    close(jax.tree.map(lambda leaf: leaf[1], mapped), of(problem))


def test_pieces_and_streams_of_a_loader(float64):
    """The carry of one call enters the next; history and padding are not run."""
    problem = make_problem("gru", 23, resets=True, mask=True)
    law = artbp.truncation.geometric(4)
    whole, stream = of(problem), problem.stream
    chunks = [stream.xs, stream.targets, stream.resets, stream.mask]
    loader = [
        artbp.Stream(*[np.asarray(leaf[i : i + 6]) for leaf in chunks]) for i in (0, 6, 12, 18)
    ]
    for estimator in (
        artbp.artbp(problem.cell, problem.loss_fn, law),  # padded behind `stop`
        artbp.unbiased_tbptt(problem.cell, problem.loss_fn, law, truncation_length=2),  # history
    ):
        state = estimator.init(problem.params, problem.carry, rng_key=jax.random.key(0))
        carry, losses, number = problem.carry, 0.0, 0
        for piece in artbp.stream_chunks(loader, estimator, state, num_steps=7):
            found = of(problem, piece, carry, chunk_size=3)
            losses, number = losses + found.loss_sum, number + found.num_losses
            carry = found.carry
        close((losses, number, carry), tuple(whole)[:3])


def test_cells_and_losses_without_derivatives():
    """A `while_loop` has no reverse mode, and integer params have no gradient."""

    def cell(params, carry, x):
        carry = jax.lax.while_loop(lambda s: s < x, lambda s: s + params, carry)
        return carry, carry

    found = artbp.evaluate(
        cell,
        lambda params, y, target: y.astype(float),
        jnp.int32(2),
        jnp.int32(0),
        artbp.Stream(jnp.array([3, 5, 6], jnp.int32)),
        chunk_size=2,
    )
    assert (float(found.loss_sum), int(found.num_losses), int(found.carry)) == (4 + 6 + 6, 3, 6)


@pytest.mark.optimised
def test_the_memory_does_not_grow_with_the_sequence():
    problem = make_problem("lstm", 16, batch=8)

    def temporary(num_steps):
        stream = jax.tree.map(lambda leaf: jnp.zeros((num_steps, *leaf.shape[1:])), problem.stream)
        stream = artbp.Stream(stream.xs, stream.targets)
        function = functools.partial(artbp.evaluate, problem.cell, problem.loss_fn, chunk_size=64)
        compiled = jax.jit(function).lower(problem.params, problem.carry, stream).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    assert temporary(6400) <= temporary(640) + 1024


def test_a_bad_chunk_size():
    with pytest.raises(ValueError, match="chunk_size=0"):
        of(make_problem(), chunk_size=0)


def test_more_losses_than_int32_counts_are_refused():
    """Only traced: the run would take hours."""

    def sums():
        stream = artbp.Stream(None, num_steps=2**16)
        arguments = jnp.ones(()), jnp.zeros(2**15), stream
        return artbp.evaluate(lambda p, c, x: (c, c), lambda p, y, target: p * y, *arguments)

    with pytest.raises(ValueError, match="has up to 2,147,483,648 losses; expected fewer"):
        jax.eval_shape(sums)
