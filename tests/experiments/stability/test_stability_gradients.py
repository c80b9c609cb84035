"""Network, truncations, clipping and gradient norms, against slow twins."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree
from problems import relative_error

from experiments.common.arms import parse
from experiments.stability import gradients, system
from experiments.stability.system import Clip

pytestmark = pytest.mark.usefixtures("float64")

ROWS, LENGTH, MEAN = 2, 12, 4
BPTT, TBPTT, ARTBP = "bptt(12)", "tbptt(4)", "artbp(4, alpha=4)"
GEOMETRIC = "artbp(4, law='geometric')"


def small_config(**fields):
    values = {
        "arms": (BPTT, TBPTT, ARTBP, GEOMETRIC),
        "clipped_arm": ARTBP,
        "seed": 0,
        "num_rows": ROWS,
        "sequence_length": LENGTH,
        "horizon": 2,
        "hidden_size": 5,
        "num_norm_draws": 3,
        "spectral_radii": (0.5, 2.0),
        "num_seeds": 1,
        "num_bias_keys": 3,
        "clipping_radius": 1.1,
        "clip_bounds": (0.3, 2.0),
    }
    return types.SimpleNamespace(**values | fields)


def make(radius=1.1, num_sequences=1):
    params = system.init(jax.random.key(0), 5, radius)
    return params, system.sequences(small_config(), 0, num_sequences)


def one_pass(arm, params, stream, key):
    """The gradients of one pass of the stream, one per segment."""
    estimator = system.make_estimator(parse(arm), small_config())
    state = estimator.init(params, jnp.zeros((ROWS, 5)), rng_key=key)
    found, ended = [], False
    while not ended:
        gradient, state, info = estimator.estimate(params, state, stream)
        found.append(gradient)
        ended = bool(info.end_of_stream)
    return found


def sample_gates(arm, key, num_steps):
    return parse(arm).law.sample_gates(key, num_steps)


def added(trees):
    return jax.tree.map(lambda *leaves: sum(leaves), *trees)


@pytest.mark.parametrize("radius", [0.8, 2.0])
def test_the_spectral_radius_is_that_of_every_eigenvalue(radius):
    recurrent = system.init(jax.random.key(3), 6, radius)["cell"]["recurrent"]
    np.testing.assert_allclose(np.abs(np.linalg.eigvals(np.asarray(recurrent))), radius)
    assert recurrent.dtype == jnp.float64


def test_the_loss_of_sequences_that_begin_anew():
    params, stream = make(num_sequences=2)
    assert np.flatnonzero(stream.resets).tolist() == [0, LENGTH]
    losses = []
    for t in range(2 * LENGTH):
        hidden = jnp.zeros((ROWS, 5)) if t % LENGTH == 0 else hidden  # noqa: F821
        hidden, y = system.core(params["cell"], hidden, stream.xs[t])
        guess = y @ params["readout"]["kernel"] + params["readout"]["bias"]
        losses.append(np.mean(np.square(guess - stream.targets[t])))
    np.testing.assert_allclose(system.mean_loss(params, stream), np.mean(losses))


@pytest.mark.parametrize("arm", [TBPTT, ARTBP])
def test_gates_estimator_and_normaliser_belong_together(arm):
    """Norms are measured with gates, trainings run the estimator: one and the same gradient."""
    params, stream = make()
    gradient = jax.jit(jax.grad(system.mean_loss))
    for seed in range(3):
        key = jax.random.key(seed)
        from_gates = gradient(params, stream, sample_gates(arm, key, LENGTH))
        total = added(one_pass(arm, params, stream, key))
        updates = LENGTH / MEAN
        expected = jax.tree.map(lambda g, n=updates: n * g, from_gates)
        assert relative_error(total, expected) < 1e-12
        exact = gradient(params, stream, jnp.ones(LENGTH))
        assert relative_error(from_gates, exact) > 1e-3


def test_gates_of_bptt_cut_nothing_within_a_sequence():
    key = jax.random.key(0)
    assert sample_gates(BPTT, key, LENGTH)[:-1].tolist() == [1] * (LENGTH - 1)
    assert np.flatnonzero(sample_gates(TBPTT, key, LENGTH) == 0).tolist() == [3, 7, 11]


def test_bptt_updates_once_per_sequence():
    params, stream = make(num_sequences=3)
    found = one_pass(BPTT, params, stream, jax.random.key(0))
    assert len(found) == 3
    second = type(stream)(stream.xs[LENGTH : 2 * LENGTH], stream.targets[LENGTH : 2 * LENGTH])
    assert relative_error(found[1], jax.jit(jax.grad(system.mean_loss))(params, second)) < 1e-12


def test_clipping_is_that_of_optax():
    gradient = {"a": jnp.array([3.0, -4.0]), "b": jnp.array([[12.0]])}  # norm 13
    for bound in (0.1, 5.0, 100.0):
        by_norm, _ = optax.clip_by_global_norm(bound).update(gradient, optax.EmptyState())
        by_value, _ = optax.clip(bound).update(gradient, optax.EmptyState())
        assert relative_error(system.clip(gradient, Clip(norm_bound=bound)), by_norm) < 1e-12
        assert relative_error(system.clip(gradient, Clip(value_bound=bound)), by_value) == 0
        optimizer = system.clipped_sgd(0.5, Clip(norm_bound=bound))
        updates, _ = optimizer.update(gradient, optimizer.init(gradient))
        assert float(optax.tree.norm(updates)) == pytest.approx(0.5 * min(bound, 13))
    assert relative_error(system.clip(gradient, Clip()), gradient) == 0
    zero = jax.tree.map(jnp.zeros_like, gradient)
    assert float(optax.tree.norm(system.clip(zero, Clip(norm_bound=1.0)))) == 0


def test_norms_grow_with_the_radius_and_truncation_holds_them_down():
    fields = {"num_norm_draws": 24, "sequence_length": 60, "hidden_size": 16}
    config = small_config(arms=("bptt(60)", TBPTT, ARTBP, GEOMETRIC), **fields)
    found = gradients.norms(config)
    assert len(found) == 4 * 2
    rows = {(row["arm"], row["spectral_radius"]): row["quantiles"]["0.5"] for row in found}
    assert rows["bptt(60)", 2.0] > 20 * rows["bptt(60)", 0.5]
    assert rows[TBPTT, 2.0] < 0.1 * rows["bptt(60)", 2.0]


def test_clipped_segments_against_a_loop_in_python():
    params, stream = make()
    bounds = [Clip(norm_bound=0.3), Clip(value_bound=0.2), Clip()]
    keys = jax.random.split(jax.random.key(1), 3)
    found = gradients.clipped_gradients(small_config(), bounds)(params, stream, keys)
    segments = [one_pass(ARTBP, params, stream, key) for key in keys]
    clip = jax.jit(system.clip)
    for i, bound in enumerate(bounds):
        passes = [added([clip(segment, bound) for segment in one]) for one in segments]
        flat = np.array([ravel_pytree(tree)[0] for tree in passes])
        np.testing.assert_allclose(found[:, i], flat, atol=1e-12)


def test_bias_is_nothing_but_chance_without_clipping_and_more_with_it():
    rows = gradients.bias(small_config(num_bias_keys=400, num_seeds=2))
    by_bounds = {(row["norm_bound"], row["value_bound"]): row for row in rows}
    assert len(rows) == 2 * 2 + 1
    unclipped = by_bounds[np.inf, np.inf]
    # The squared difference is on average the squared standard error: 3 of it is far out.
    chance = unclipped["relative_standard_error_largest"]
    assert unclipped["relative_bias_largest"] < 3 * chance
    clipped = by_bounds[0.3, np.inf]
    error = clipped["relative_standard_error_largest"]
    assert clipped["relative_bias_smallest"] > 10 * error
    assert clipped["relative_norm_largest"] < unclipped["relative_norm_smallest"]
    # The draws differ, and the median of two lies halfway.
    low, middle, high = (clipped[f"cosine_{w}"] for w in ("smallest", "median", "largest"))
    assert low < high
    assert middle == pytest.approx((low + high) / 2)
    assert clipped["num_draws"] == 2


def test_numbers_over_draws(monkeypatch):
    draws = iter([{"a": np.array(draw)} for draw in ([1.0, 5.0, 0.0], [4, 6, 0], [2, 7, 0])])
    monkeypatch.setattr(gradients, "compare", lambda *arguments: next(draws))
    rows = gradients.bias(small_config(num_seeds=3, num_bias_keys=2, clip_bounds=(0.3,)))
    assert [row["norm_bound"] for row in rows] == [0.3, np.inf, np.inf]
    assert [row["value_bound"] for row in rows] == [np.inf, 0.3, np.inf]
    for row, expected in zip(rows, ([2, 1, 4], [6, 5, 7], [0, 0, 0]), strict=True):
        assert [row[f"a_{word}"] for word in ("median", "smallest", "largest")] == expected


def test_compare():
    draws = np.array([[[2.0, 4.0]], [[4.0, 4.0]]])  # two, with a mean of (3, 4)
    found = gradients.compare(draws, np.array([10.0, 0.0]))
    assert found["relative_norm"] == pytest.approx([0.5])
    assert found["cosine"] == pytest.approx([0.6])
    assert found["relative_bias"] == pytest.approx([np.sqrt(49 + 16) / 10])
    assert found["relative_standard_error"] == pytest.approx([np.sqrt(2 / 2) / 10])
