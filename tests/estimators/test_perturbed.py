"""PES and truncated ES on a problem whose loss is quadratic in its parameters.

Smoothing does not change the gradient of a quadratic. The mean of PES is therefore exactly the BPTT
gradient, and the mean of truncated ES is the TBPTT gradient.
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from problems import SmallProblem, bptt_gradient, make_problem, one_pass, relative_error

import artbp
from artbp.estimators import perturbed

pytestmark = pytest.mark.usefixtures("float64")

NUM_STEPS, UNROLL = 7, 2  # the last unroll has one step
NUM_KEYS = 4000
# Five standard errors, two-sided: false alarm rate 6e-7 per component, below 2e-6 for all three.
LIMIT = 5


def quadratic_problem(resets=None):
    """Makes s' = A s + B θ + x, ℓ = ½ ‖s' − target‖², where s is linear in θ."""
    keys = jax.random.split(jax.random.key(0), 4)
    transition = 0.9 * jnp.linalg.qr(jax.random.normal(keys[0], (3, 3)))[0]
    drive = jax.random.normal(keys[1], (3, 3))

    def cell(params, carry, x):
        carry = carry @ transition + (params["theta"] @ drive)[None] + x
        return carry, carry

    def loss_fn(params, y, target):
        return 0.5 * jnp.sum((y - target) ** 2, axis=-1)

    stream = artbp.Stream(
        jax.random.normal(keys[2], (NUM_STEPS, 2, 3)),
        jax.random.normal(keys[3], (NUM_STEPS, 2, 3)),
        resets=resets,
    )
    params = {"theta": jnp.array([0.5, -0.2, 0.1])}
    return SmallProblem(cell, loss_fn, params, jnp.ones((2, 3)), stream)


def distances(make, expected, problem):
    """Computes |mean over keys − expected| in standard errors for each component."""
    estimator = make(
        problem.cell, problem.loss_fn, truncation_length=UNROLL, num_pairs=4, scale=0.1
    )

    def of_key(key):
        state = estimator.init(problem.params, problem.carry, rng_key=key)

        def unroll(state, _):
            grads, state, _ = estimator.estimate(problem.params, state, problem.stream)
            return state, ravel_pytree(grads)[0]

        return jax.lax.scan(unroll, state, length=-(-NUM_STEPS // UNROLL))[1].sum(0)

    samples = np.asarray(jax.jit(jax.vmap(of_key))(jax.random.split(jax.random.key(1), NUM_KEYS)))
    errors = samples.std(0) / np.sqrt(NUM_KEYS)
    return np.abs(samples.mean(0) - ravel_pytree(expected)[0]) / errors


NUM_UNROLLS = -(-NUM_STEPS // UNROLL)


def resets_at(step, rows=slice(None)):
    """Resets of these rows at one step."""
    resets = np.zeros((NUM_STEPS, 2), bool)
    resets[step, rows] = True
    return resets


def over_all_signs(monkeypatch, make, num_draws, draw_at, resets=None):
    """The mean gradient of a pass over all signs of the perturbations, one pair for each.

    `draw_at[i]` says which of `num_draws` independent draws unroll i is offered.
    """
    problem, scale = quadratic_problem(resets), 0.1
    size = problem.params["theta"].size
    signs = np.array(list(itertools.product([-1.0, 1.0], repeat=num_draws * size)))
    table = iter(scale * signs.reshape(-1, num_draws, size).swapaxes(0, 1)[draw_at])
    monkeypatch.setattr(
        perturbed, "_draw_perturbations", lambda *_: {"theta": jnp.asarray(next(table))}
    )
    estimator = make(
        problem.cell, problem.loss_fn, truncation_length=UNROLL, num_pairs=len(signs), scale=scale
    )
    with jax.disable_jit():
        mean, infos, _ = one_pass(estimator, problem)
    assert len(infos) == NUM_UNROLLS
    return mean, bptt_gradient(problem)


def gpes_2(*args, **kwargs):
    return artbp.gpes(*args, draw_every=2 * UNROLL, **kwargs)


@pytest.mark.parametrize(
    ("make", "num_draws", "draw_at"),
    [
        (artbp.pes, 4, [0, 1, 2, 3]),
        # A draw that must not be used is that of another unroll.
        (gpes_2, 2, [0, 1, 1, 0]),
        (artbp.nres, 2, [0, 1, 1, 1]),
    ],
)
def test_the_mean_over_all_signs_is_bptt_on_a_quadratic(monkeypatch, make, num_draws, draw_at):
    mean, expected = over_all_signs(monkeypatch, make, num_draws, draw_at)
    assert relative_error(mean, expected) < 1e-12


@pytest.mark.parametrize("make", [artbp.pes, gpes_2, artbp.nres])
@pytest.mark.parametrize(
    ("step", "rows"),
    # In all rows where an unroll begins; in one row; in all rows, within an unroll.
    [(UNROLL, slice(None)), (UNROLL, 0), (UNROLL + 1, slice(None))],
)
def test_the_mean_is_bptt_with_resets(monkeypatch, make, step, rows):
    """An offered draw that must not be used is that of another unroll, as above."""
    draws = {artbp.pes: [0, 1, 2, 3], gpes_2: [0, 1, 1, 0], artbp.nres: [0, 1, 1, 1]}[make]
    if step == UNROLL and rows != 0:
        # Both begin again at the second unroll; gpes_2 draws next at the fourth.
        draws = {artbp.pes: draws, gpes_2: [0, 1, 0, 2], artbp.nres: [0, 1, 0, 0]}[make]
    mean, expected = over_all_signs(monkeypatch, make, max(draws) + 1, draws, resets_at(step, rows))
    assert relative_error(mean, expected) < 1e-12


def two_unrolls(make, problem, initial_carry=None):
    """(ξ, ε; for PES ξ alone) of one pair, after the first and after the second unroll."""
    estimator = make(
        problem.cell, problem.loss_fn, truncation_length=UNROLL, num_pairs=1, scale=0.1
    )
    state = estimator.init(
        problem.params, problem.carry, rng_key=jax.random.key(0), initial_carry=initial_carry
    )
    seen = []
    for _ in range(2):
        _, state, _ = estimator.estimate(problem.params, state, problem.stream)
        particles = state.inner_state.accumulated, state.inner_state.perturbations
        seen.append([np.asarray(leaf) for leaf in jax.tree.leaves(particles)])
    return seen


@pytest.mark.parametrize("make", [artbp.pes, gpes_2, artbp.nres])
def test_perturbations_begin_again_at_a_reset(make):
    """Of the whole carry, in all rows, at the first step of an unroll."""
    plain = two_unrolls(make, quadratic_problem())
    first, second = two_unrolls(make, quadratic_problem(resets_at(UNROLL)))
    np.testing.assert_array_equal(first, plain[0])
    assert not np.array_equal(first, second)
    # What has been drawn at the reset is all that ξ holds.
    drawn = plain[1][0] - plain[0][0] if make is artbp.pes else second[1]
    np.testing.assert_allclose(second[0], drawn, rtol=1e-12)
    for resets in (resets_at(UNROLL, 0), resets_at(UNROLL + 1)):
        np.testing.assert_array_equal(two_unrolls(make, quadratic_problem(resets)), plain)


@pytest.mark.parametrize("make", [artbp.pes, artbp.nres])
@pytest.mark.parametrize("last", [jax.random.key, lambda seed: jnp.full((), seed)])
def test_a_leaf_that_lasts_keeps_the_perturbations_unless_it_is_a_key(make, last):
    problem = quadratic_problem(resets_at(UNROLL))

    def cell(params, carry, x):
        new, y = problem.cell(params, carry[0], x)
        return (new, carry[1]), y

    lasting = problem._replace(cell=cell, carry=(problem.carry, last(3)))
    _, second = two_unrolls(make, lasting, (jnp.zeros((2, 3)), None))
    begins_again = jnp.issubdtype(last(3).dtype, jax.dtypes.prng_key)
    like = problem if begins_again else quadratic_problem()
    np.testing.assert_array_equal(second, two_unrolls(make, like)[1])


def test_truncated_es_is_biased_over_all_signs(monkeypatch):
    mean, expected = over_all_signs(monkeypatch, artbp.truncated_es, 1, [0, 0, 0, 0])
    assert relative_error(mean, expected) > 0.01


def test_pes_is_unbiased_on_a_quadratic():
    problem = quadratic_problem()
    assert max(distances(artbp.pes, bptt_gradient(problem), problem)) < LIMIT


def test_truncated_es_is_rejected_by_the_same_test():
    problem = quadratic_problem()
    assert max(distances(artbp.truncated_es, bptt_gradient(problem), problem)) > LIMIT


def test_truncated_es_has_the_mean_of_tbptt():
    problem = quadratic_problem()
    tbptt = artbp.tbptt(problem.cell, problem.loss_fn, truncation_length=UNROLL)
    expected, _, _ = one_pass(tbptt, problem)
    assert max(distances(artbp.truncated_es, expected, problem)) < LIMIT


@pytest.mark.parametrize("make", [artbp.pes, artbp.nres, artbp.truncated_es])
def test_follows_the_unperturbed_system(make):
    """Loss and carry are those of the unperturbed system, whatever the particles do."""
    problem = make_problem("gru", 7, resets=True, mask=True)
    estimator = make(problem.cell, problem.loss_fn, truncation_length=4, scale=0.5)
    reference = artbp.tbptt(problem.cell, problem.loss_fn, truncation_length=4)
    key = jax.random.key(0)
    state = estimator.init(problem.params, problem.carry, rng_key=key)
    expected = reference.init(problem.params, problem.carry, rng_key=key)
    for _ in range(3):  # into the second pass
        _, state, info = estimator.estimate(problem.params, state, problem.stream)
        _, expected, expected_info = reference.estimate(problem.params, expected, problem.stream)
        np.testing.assert_allclose(info.loss_sum, expected_info.loss_sum, rtol=1e-12)
        assert int(info.num_losses) == int(expected_info.num_losses)
        np.testing.assert_allclose(state.carry, expected.carry, rtol=1e-12)


def test_pes_restarts_its_particles_with_the_stream():
    """After a pass the particles have the initial carry, and ξ is zero."""
    problem = quadratic_problem()
    estimator = artbp.pes(problem.cell, problem.loss_fn, truncation_length=4, num_pairs=3)
    state = estimator.init(problem.params, problem.carry, rng_key=jax.random.key(0))
    initial = state.inner_state
    _, state, info = estimator.estimate(problem.params, state, problem.stream)
    assert not info.end_of_stream
    assert np.any(state.inner_state.accumulated["theta"])
    assert np.ptp(state.inner_state.carries, axis=0).max() > 0
    _, state, info = estimator.estimate(problem.params, state, problem.stream)
    assert info.end_of_stream
    jax.tree.map(np.testing.assert_array_equal, state.inner_state, initial)


def test_black_boxes_need_no_derivative():
    """A cell that rounds has a derivative of zero, but its smoothed loss does not."""

    def cell(params, carry, x):
        carry = 0.5 * carry + jnp.round(10 * params["theta"]) / 10
        return carry, carry

    problem = SmallProblem(
        cell,
        lambda params, y, target: 0.5 * (y - 1.0) ** 2,
        {"theta": jnp.asarray(0.3)},
        jnp.asarray(0.0),
        artbp.Stream(jnp.zeros(8), jnp.zeros(8)),
    )
    assert float(bptt_gradient(problem)["theta"]) == 0
    smooth = problem._replace(cell=lambda params, carry, x: (0.5 * carry + params["theta"],) * 2)
    # Rounding to a tenth is small compared with perturbations of 0.3. The mean over keys equals the
    # gradient without rounding, up to 5 % and five standard errors.
    estimator = artbp.pes(cell, problem.loss_fn, truncation_length=2, num_pairs=64, scale=0.3)

    def of_key(key):
        state = estimator.init(problem.params, problem.carry, rng_key=key)

        def unroll(state, _):
            grads, state, _ = estimator.estimate(problem.params, state, problem.stream)
            return state, grads["theta"]

        return jax.lax.scan(unroll, state, length=4)[1].sum()

    samples = np.asarray(jax.jit(jax.vmap(of_key))(jax.random.split(jax.random.key(1), 1000)))
    error = samples.std() / np.sqrt(samples.size)
    exact = float(bptt_gradient(smooth)["theta"])
    assert error < 0.02 * abs(exact)
    assert abs(samples.mean() - exact) < 0.05 * abs(exact) + 5 * error


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.complex64])
@pytest.mark.parametrize("make", [artbp.pes, artbp.truncated_es])
def test_params_that_cannot_be_perturbed(make, dtype):
    problem = quadratic_problem()

    def loss_fn(params, y, target):
        return jnp.sum(y) + jnp.sum(jnp.abs(params["theta"])).astype(y.dtype)

    estimator = make(lambda params, carry, x: (carry, carry), loss_fn, truncation_length=2)
    params = {"theta": jnp.ones((3,), dtype)}
    state = estimator.init(params, problem.carry, rng_key=jax.random.key(0))
    with pytest.raises(TypeError, match=r"float32 or wider.*a complex param as two"):
        estimator.estimate(params, state, problem.stream)


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"truncation_length": 0}, "truncation_length=0"),
        ({"truncation_length": 2, "num_pairs": 0}, "num_pairs=0"),
        ({"truncation_length": 2, "scale": 0.0}, "scale=0.0"),
    ],
)
@pytest.mark.parametrize("make", [artbp.pes, artbp.nres, artbp.truncated_es])
def test_bad_options(make, options, word):
    problem = make_problem()
    with pytest.raises(ValueError, match=word):
        make(problem.cell, problem.loss_fn, **options)


def test_keys_whose_noise_would_not_cancel_are_refused():
    def cell(params, carry, x):
        key, noise_key = jax.random.split(carry)
        return key, params * jax.random.normal(noise_key)

    estimator = artbp.pes(cell, lambda params, y, target: y, truncation_length=2)
    stream = artbp.Stream(None, num_steps=4)
    options = {"rng_key": jax.random.key(0)}
    state = estimator.init(jnp.ones(()), jax.random.key(1, impl="rbg"), **options)
    with pytest.raises(ValueError, match="carry has keys of rbg; expected keys of threefry2x32"):
        estimator.estimate(jnp.ones(()), state, stream)


def test_gpes_draws_where_an_unroll_begins():
    problem = make_problem()
    with pytest.raises(
        ValueError, match="draw_every=5; expected a multiple of truncation_length=2"
    ):
        artbp.gpes(problem.cell, problem.loss_fn, truncation_length=2, draw_every=5)
