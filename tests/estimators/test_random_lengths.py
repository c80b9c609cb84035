"""Randomised truncation in the textbook form, and the variable lengths of AWD-LSTM."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree
from problems import make_problem, one_pass, relative_error

import artbp
from artbp import truncation

pytestmark = pytest.mark.usefixtures("float64")


def forward_in_time(problem, xis):
    """z_t = ∂F_t/∂θ + ξ_t (∂F_t/∂s_{t−1}) z_{t−1}; g = Σ ∂ℓ_t/∂θ + ξ_t (∂ℓ_t/∂s_{t−1}) z_{t−1}."""
    flat_params, to_params = ravel_pytree(problem.params)
    carry, to_carry = ravel_pytree(problem.carry)
    stream = problem.stream

    @jax.jit
    def step(params, carry, t):
        new, y = problem.cell(to_params(params), to_carry(carry), stream.xs[t])
        losses = problem.loss_fn(to_params(params), y, stream.targets[t])
        return ravel_pytree(new)[0], jnp.sum(losses)

    jacobians = jax.jit(jax.jacrev(step, argnums=(0, 1)))
    z, total = np.zeros((carry.size, flat_params.size)), np.zeros(flat_params.size)
    for t, xi in enumerate(xis):
        (state_by_params, state_by_carry), loss_by = jacobians(flat_params, carry, t)
        total += loss_by[0] + xi * (loss_by[1] @ z)
        z = state_by_params + xi * (state_by_carry @ z)
        carry, _ = step(flat_params, carry, t)
    return total


@pytest.mark.parametrize("keep", [0.75, (0.9, 0.5, 0.8)], ids=["constant", "by age"])
def test_the_textbook_form_is_artbp(keep):
    """ξ_t is 0 where the estimator cut before step t, else 1/π."""
    problem = make_problem("gru", 12)
    estimator = artbp.random_truncation(problem.cell, problem.loss_fn, keep_probability=keep)
    pis = np.atleast_1d(keep)
    num_segments = []
    for seed in range(5):
        total, infos, _ = one_pass(estimator, problem, jax.random.key(seed))
        xis = []
        for info in infos:
            ages = np.arange(1, int(info.length))  # of the steps whose gates are not 0
            xis += [0.0, *(1 / pis[np.minimum(ages, pis.size) - 1])]
        np.testing.assert_allclose(
            ravel_pytree(total)[0], forward_in_time(problem, xis), rtol=1e-11, atol=1e-13
        )
        num_segments.append(len(infos))
    assert max(num_segments) > 1


def test_a_constant_probability_is_the_geometric_law():
    problem = make_problem("rnn", 40)
    ours = artbp.random_truncation(problem.cell, problem.loss_fn, keep_probability=0.75)
    theirs = artbp.artbp(problem.cell, problem.loss_fn, truncation.geometric(4))
    for seed in range(3):
        key = jax.random.key(seed)
        total, infos, _ = one_pass(ours, problem, key)
        expected, expected_infos, _ = one_pass(theirs, problem, key)
        lengths = [[int(info.length) for info in of] for of in (infos, expected_infos)]
        assert lengths[0] == lengths[1]
        assert relative_error(total, expected) < 1e-13


@pytest.mark.parametrize("keep", [0.0, 1.5, (0.5, -0.1)])
def test_bad_probabilities(keep):
    problem = make_problem()
    with pytest.raises(ValueError, match="keep_probability"):
        artbp.random_truncation(problem.cell, problem.loss_fn, keep_probability=keep)


def awd(problem, **options):
    return artbp.awd_lstm_bptt(problem.cell, problem.loss_fn, **options)


def test_awd_lstm_is_the_mean_gradient_of_a_segment():
    """The mean equals the sum over the same segment divided by its number of losses."""
    problem = make_problem("rnn", 60, mask=True)
    key = jax.random.key(0)
    means = []
    estimator = awd(problem, base_length=12, deviation=3.0, shortest=2)
    _, infos, _ = one_pass(estimator, problem, key, update=lambda p, g: means.append(g) or p)
    lengths = [int(info.length) for info in infos]
    assert sum(lengths) == 60
    assert len(set(lengths)) > 2
    sums = []
    replayed = artbp.artbp(problem.cell, problem.loss_fn, truncation.replay(lengths))
    one_pass(replayed, problem, key, update=lambda p, g: sums.append(g) or p)
    for mean, total, info in zip(means, sums, infos, strict=True):
        expected = jax.tree.map(lambda leaf, n=int(info.num_losses): leaf / n, total)
        assert relative_error(mean, expected) < 1e-12
        np.testing.assert_allclose(info.extra["learning_rate_factor"], int(info.length) / 12)


def test_awd_lstm_draws_its_lengths_as_published():
    """2000 integer lengths, at least 5: N(70, 5²) for 95 % of them, N(35, 5²) for the others."""
    num_steps = 150_000
    estimator = artbp.awd_lstm_bptt(
        lambda params, carry, x: (carry, carry + params["a"]),
        lambda params, y, target: y,
    )
    params = {"a": jnp.ones(())}
    stream = artbp.Stream(None, num_steps=num_steps)
    state = estimator.init(params, jnp.zeros(()), rng_key=jax.random.key(3))

    def segment(state, _):
        _, state, info = estimator.estimate(params, state, stream)
        return state, info.length

    lengths = np.asarray(jax.lax.scan(segment, state, length=2000)[1])
    short = lengths < 52
    assert abs(short.mean() - 0.05) < 5 * np.sqrt(0.05 * 0.95 / 2000)
    for of, base in ((lengths[~short], 70), (lengths[short], 35)):
        # Rounding down lowers the mean by a half.
        assert abs(of.mean() - (base - 0.5)) < 5 * 5 / np.sqrt(of.size)
        assert abs(of.std() - 5) < 5 * 5 / np.sqrt(2 * of.size) + 0.02
    tiny = artbp.awd_lstm_bptt(
        lambda params, carry, x: (carry, carry + params["a"]),
        lambda params, y, target: y,
        base_length=6,
    )
    state = tiny.init(params, jnp.zeros(()), rng_key=jax.random.key(3))
    lengths = [
        int(tiny.estimate(params, state._replace(num_estimates=jnp.int32(i)), stream)[2].length)
        for i in range(50)
    ]
    assert min(lengths) == 5


def test_the_learning_rate_factor_scales_an_update():
    params = {"a": jnp.array([1.0, 2.0]), "b": jnp.asarray(3.0)}
    grads = jax.tree.map(jnp.ones_like, params)
    optimizer = optax.chain(optax.sgd(0.1), artbp.scale_by_learning_rate_factor())
    state = optimizer.init(params)
    updates, _ = optimizer.update(grads, state, params, learning_rate_factor=jnp.asarray(0.5))
    jax.tree.map(lambda u, g: np.testing.assert_allclose(u, -0.05 * g), updates, grads)
    with pytest.raises(TypeError, match="learning_rate_factor"):
        optimizer.update(grads, state, params)


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"base_length": 0}, "base_length=0"),
        ({"shortest": 2.5}, "shortest=2.5"),
        ({"half_probability": 1.5}, "half_probability=1.5"),
        ({"deviation": -1.0}, "deviation=-1.0"),
    ],
)
def test_bad_options(options, word):
    with pytest.raises(ValueError, match=word):
        awd(make_problem(), **options)


def test_an_offset_may_be_as_long_as_int32_holds():
    estimator = artbp.tbptt(
        lambda params, carry, x: (carry, params * carry),
        lambda params, y, target: y,
        truncation_length=2**31 - 1,
        draw_offset=True,
    )
    params, carry = jnp.ones(()), jnp.ones(3)
    state = estimator.init(params, carry, rng_key=jax.random.key(0))
    grads, _, info = estimator.estimate(params, state, artbp.Stream(None, num_steps=5))
    assert info.length == 5 and grads == 15
