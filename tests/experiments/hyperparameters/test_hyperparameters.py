"""Inner trainings, sign map, outer training, against slow twins; the whole at a tiny size."""

import functools
import itertools
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import workdirs

import artbp
from artbp import truncation
from experiments.common.arms import Size, parse
from experiments.common.cli import CommandLine
from experiments.common.config import load_config
from experiments.common.report import select
from experiments.hyperparameters import look_backs, problems, report, signs, training
from experiments.hyperparameters.__main__ import STUDY

CONFIG_FILE = Path(__file__).parents[3] / "configs" / "hyperparameters" / "default.py"
TINY = (
    "quadratic_steps=12",
    "network_steps=10",
    "num_directions=4",
    "num_inputs=3",
    "num_hidden=3",
    "num_classes=3",
    "minibatch_size=4",
    "num_scored=5",
    "arms=('bptt', 'tbptt(2)', 'artbp(3, alpha=4)', 'unbiased_tbptt(3, windows=1.5, alpha=4)')",
    "grid_size=3",
    "num_scoring=2",
    "num_sign_points=3",
    "num_sign_trainings=3",
    "num_draws=2",
    "num_exact_draws=2",
    "num_trainings=3",
    "outer_rates=(0.01, 0.1)",
    "num_tuning_runs=1",
    "num_seeds=2",
)


def tiny_config(*overrides):
    return load_config(STUDY.default_config(), CONFIG_FILE, (*TINY, *overrides))


def loop_loss(problem, start, end, key):
    """The mean meta loss of a plain Python loop over the inner training."""
    carry, stream = drawn(problem.draw)(key)
    params, losses = problems.hyperparameters(start, end), []
    step = one_step(problem.cell, problem.loss_fn)
    for t in range(problem.num_steps):
        x = jax.tree.map(lambda leaf, t=t: np.asarray(leaf)[t], stream.xs)
        carry, loss = step(params, carry, x)
        losses.append(loss)
    return np.mean(losses)


# Compiled once: what is done outside `jit` compiles one operation at a time.
drawn = functools.cache(jax.jit)


@functools.cache
def one_step(cell, loss_fn):
    def step(params, carry, x):
        carry, y = cell(params, carry, x)
        return carry, loss_fn(params, y, None)

    return jax.jit(step)


def test_the_quadratic_is_the_expectation_of_sgd_itself(float64):
    config = tiny_config("num_directions=3", "quadratic_steps=8")
    problem = problems.quadratic(config)
    params = problems.hyperparameters(0.9, 0.2)
    curvature = np.arange(1, 4) ** -1.0
    rng = np.random.default_rng(0)
    weights = np.ones((400_000, 3))
    carry, _ = problem.draw(jax.random.key(0))
    for t in range(8):
        rate = 0.9 ** (1 - t / 7) * 0.2 ** (t / 7)
        noise = np.sqrt(config.gradient_noise * curvature) * rng.standard_normal(weights.shape)
        weights -= rate * (curvature * weights + noise)
        carry, y = problem.cell(params, carry, None)
    sampled = 0.5 * (weights**2) @ curvature
    error = sampled.std() / np.sqrt(len(sampled))
    assert abs(problem.loss_fn(params, y, None) - sampled.mean()) < 4 * error
    assert error < 0.005 * sampled.mean()


def test_the_network_is_sgd_of_optax_and_its_loss_a_divergence(float64):
    problem = problems.network(tiny_config())
    shape = problems.Network(3, 3, 3)
    carry, stream = drawn(problem.draw)(jax.random.key(1))
    weights = carry[0]
    inputs, one_hot = stream.xs

    def loss(weights):
        w = weights[:9].reshape(3, 3)
        hidden = jnp.tanh(inputs[0] @ w + weights[9:12])
        logits = hidden @ weights[12:21].reshape(3, 3) + weights[21:]
        return jnp.mean(optax.softmax_cross_entropy(logits, one_hot[0]))

    params = problems.hyperparameters(0.7, 0.1)
    (after, step), y = problem.cell(params, carry, (inputs[0], one_hot[0]))
    np.testing.assert_allclose(after, weights - 0.7 * jax.grad(loss)(weights), rtol=1e-12)
    assert (int(step), len(weights)) == (1, shape.size)
    np.testing.assert_array_equal(y, after)
    assert float(problem.loss_fn(params, y, None)) > 0
    teacher_key = jax.random.split(jax.random.key(0))[0]
    teacher = shape.init(teacher_key, 3.0)
    assert float(problem.loss_fn(params, teacher, None)) == pytest.approx(0, abs=1e-14)
    np.testing.assert_array_equal(one_hot.sum(axis=-1), 1)


def test_rates_of_a_schedule():
    params = problems.hyperparameters(0.8, 0.002)
    found = [float(problems.rate_at(params, jnp.asarray(t), 5)) for t in range(5)]
    np.testing.assert_allclose(found, np.geomspace(0.8, 0.002, 5), rtol=1e-5)
    np.testing.assert_allclose(problems.rates_of(params), (0.8, 0.002), rtol=1e-5)


ARMS = [parse("bptt"), parse("tbptt(4)"), parse("artbp(3, alpha=4)")]
UNBIASED = parse("unbiased_tbptt(4, windows=1.5, alpha=4)")


def test_slopes_of_the_network_against_a_python_loop_and_the_estimators(float64):
    config = tiny_config()
    problem = problems.network(config)
    keys = jax.random.split(jax.random.key(5), 2)
    slopes = signs._slopes(problem, ARMS, keys, 2)
    direction = jnp.array([0.3, 1.0])
    found = np.asarray(slopes(jnp.array([[0.4, 0.1]]), direction))[0]
    assert found.shape == (2, 3, 2)  # [trainings, arms, slope and share of wrong signs]
    for of_training in found:
        is_wrong = np.sign(of_training[:2, 0]) != np.sign(of_training[0, 0])
        np.testing.assert_array_equal(of_training[:2, 1], is_wrong)
    found = found[..., 0]
    step = 1e-5
    estimator = training.build(ARMS[1], problem)
    estimate = jax.jit(estimator.estimate)
    params = problems.hyperparameters(0.4, 0.1)
    for i, key in enumerate(keys):
        ends = [
            loop_loss(problem, 0.4 * np.exp(0.3 * s), 0.1 * np.exp(s), key) for s in (step, -step)
        ]
        np.testing.assert_allclose(found[i, 0], (ends[0] - ends[1]) / (2 * step), rtol=1e-6)
        carry, stream = drawn(problem.draw)(key)
        state, total, ended = estimator.init(params, carry, rng_key=key), 0.0, False
        while not ended:
            grads, state, info = estimate(params, state, stream)
            total += 0.3 * grads["log_rate_start"] + grads["log_rate_end"]
            ended = bool(info.end_of_stream)
        np.testing.assert_allclose(found[i, 1], total, rtol=1e-10)
        assert abs(found[i, 1] - found[i, 0]) > 0.02 * abs(found[i, 0])


def test_random_arms_have_no_bias_on_the_quadratic_where_tbptt_is_seen_to_have_one(float64):
    problem = problems.quadratic(tiny_config())
    keys = jax.random.split(jax.random.key(5), 1)
    arms = [*ARMS, UNBIASED]
    slopes = signs._slopes(problem, arms, keys, 4096)
    found = np.asarray(slopes(jnp.array([[0.4, 0.1]]), jnp.array([0.3, 1.0])))[0, 0, :, 0]
    params = problems.hyperparameters(0.4, 0.1)
    errors = signs._exact_errors(problem, arms, params, (0.3, 1.0), 4096)
    assert list(errors) == arms[2:]
    for i, error in zip((2, 3), errors.values(), strict=True):
        assert 0 < abs(found[i] - found[0]) < 4 * error
        assert abs(found[1] - found[0]) > 8 * error


def test_the_share_of_single_draws_with_a_wrong_sign(float64):
    """That of other draws, one by one; some are right and some wrong where the slope is small."""
    problem, number = problems.quadratic(tiny_config()), 2000
    key = jax.random.key(6)
    slopes = signs._slopes(problem, ARMS, key[None], number)
    direction = jnp.array([0.0, 1.0])
    share = float(slopes(jnp.array([[1.2, 0.05]]), direction)[0, 0, 2, 1])
    carry, _ = drawn(problem.draw)(key)
    params = problems.hyperparameters(1.2, 0.05)

    @jax.jit
    def slope(gates):
        def loss(params):
            xs = jnp.zeros(problem.num_steps)
            step = lambda p, c, _: problem.cell(p, c, None)  # noqa: E731
            _, ys = artbp.unroll(step, params, carry, xs, gates=gates)
            return jnp.sum(jax.vmap(lambda y: problem.loss_fn(params, y, None))(ys))

        return jax.grad(loss)(params)["log_rate_end"]

    law = ARMS[2].law
    keys = jax.random.split(jax.random.key(7), number)
    gates = jax.vmap(lambda k: law.sample_gates(k, problem.num_steps))(keys)
    each = jax.lax.map(slope, gates.astype(float))
    is_wrong = jnp.sign(each) != jnp.sign(slope(jnp.ones(problem.num_steps)))
    expected = float(jnp.mean(is_wrong))
    assert 0.05 < expected < 0.95
    assert abs(share - expected) < 5 * np.sqrt(2 * expected * (1 - expected) / number)


LOOK_BACKS = list(itertools.product((1,), (1, 2), (1, 2, 3)))  # of windows of 5, 5 and 2 steps


@pytest.mark.parametrize("name", problems.PROBLEMS)
def test_slopes_of_look_backs_are_those_of_the_estimator(name, float64):
    """For each pattern of look-backs; and their variance, by enumeration."""
    problem = problems.PROBLEMS[name](tiny_config("network_steps=12"))
    law, direction = truncation.polynomial(1.5, 4), (0.3, 1.0)
    params = problems.hyperparameters(0.4, 0.1)
    carry, stream = drawn(problem.draw)(jax.random.key(5))
    parts = np.asarray(look_backs.slopes_by_distance(problem, params, carry, stream, direction, 5))

    @jax.jit
    def slope(pattern):
        estimator = artbp.unbiased_tbptt(
            problem.cell, problem.loss_fn, truncation.replay(pattern, law), truncation_length=5
        )
        state, total = estimator.init(params, carry, rng_key=jax.random.key(0)), 0.0
        for _ in range(3):
            grads, state, _ = estimator.estimate(params, state, stream)
            total += 0.3 * grads["log_rate_start"] + grads["log_rate_end"]
        return total

    expected = np.array([slope(jnp.array(pattern)) for pattern in LOOK_BACKS])
    found = [
        sum(parts[n, j] / law.survival(j) for n in range(3) for j in range(pattern[n]))
        for pattern in LOOK_BACKS
    ]
    np.testing.assert_allclose(found, expected, rtol=1e-10)
    # The last look-back that a window can have stands for all that are longer.
    chances = [-np.diff([1, *law.survival(np.arange(1, n + 1)), 0]) for n in range(3)]
    chance = np.array([chances[1][b - 1] * chances[2][c - 1] for _, b, c in LOOK_BACKS])
    mean = chance @ expected
    assert chance.sum() == pytest.approx(1)
    assert mean == pytest.approx(parts.sum(), rel=1e-10)
    variance = chance @ (expected - mean) ** 2
    assert look_backs.variance(law, parts) == pytest.approx(variance, rel=1e-10)
    # Draws have these values, this often.
    drawn_slopes = look_backs.draw(law, jnp.asarray(parts), jax.random.key(3), 4000)
    is_equal = np.isclose(np.asarray(drawn_slopes)[:, None], expected, rtol=1e-8)
    assert (is_equal.sum(axis=1) == 1).all()
    error = np.sqrt(chance * (1 - chance) / 4000)
    assert (abs(is_equal.mean(axis=0) - chance) < 4.5 * error).all()  # false alarms below 1e-4


def test_an_outer_training_against_a_loop_in_python(float64):
    problem = problems.quadratic(tiny_config())
    estimator = training.build(parse("tbptt(4)"), problem)
    params = problems.hyperparameters(0.05, 0.05)
    trainings = jax.jit(jax.vmap(problem.draw))(jax.random.split(jax.random.key(0), 3))
    keys = jax.random.split(jax.random.key(1), 3)
    rates, num_updates = jax.jit(
        lambda rate: training.outer_training(problem, estimator, params, rate, trainings, keys)
    )(0.1)
    assert rates.shape == (4, 2)
    assert int(num_updates) == 9  # 4 + 4 + 4 steps, three times
    adam, estimate = optax.scale_by_adam(), jax.jit(estimator.estimate)
    opt_state, done = adam.init(params), 0
    for i in range(3):
        np.testing.assert_allclose(rates[i], problems.rates_of(params), rtol=1e-7)
        carry, stream = jax.tree.map(lambda leaf, i=i: leaf[i], trainings)
        state = estimator.init(params, carry, rng_key=keys[i])
        for _ in range(3):
            grads, state, info = estimate(params, state, stream)
            updates, opt_state = adam.update(grads, opt_state)
            rate = 0.1 * (1 - done / 36)
            params = jax.tree.map(lambda x, u, r=rate: x - r * u, params, updates)
            done += int(info.length)
    np.testing.assert_allclose(rates[3], problems.rates_of(params), rtol=1e-7)


def test_the_grid_finds_its_best_and_scores_are_those_of_a_loop(float64):
    config = tiny_config()
    problem = problems.network(config)
    found = problems.try_rates(config, problem)
    losses = np.array(found["losses"])
    assert losses.shape == (3, 3)
    assert found["best_loss"] == losses.min()
    start, end = found["start_rates"], found["end_rates"]
    keys = problems.scoring_keys(config, problem)
    assert len(keys) == found["num_trainings"] == 2
    for i in range(3):
        one = [loop_loss(problem, start[i], end[2], key) for key in keys]
        np.testing.assert_allclose(losses[i, 2], np.mean(one), rtol=1e-10)
    mean, last = problems.scores(config, problem, np.array([[[0.1, 0.1], [np.nan, 0.1]]]))
    assert mean.shape == last.shape == (1, 2)
    assert np.isfinite(mean[0, 0])
    assert np.isinf(mean[0, 1])


def sign_row(label, rate, slope, **fields):
    row = {"part": "signs", "problem": "quadratic", "line": "constant", "rate": rate}
    row |= {"label": label, "random": "ARTBP" in label, "slope": slope, "data_error": 0.0}
    row |= {"num_trainings": 1, "wrong_draws": 0.25}
    return row | {"bias": 0.0, "bias_error": 0.0} | fields


def test_wrong_signs_are_counted_where_the_truth_is_known():
    truth = [-1.0, -0.5, 0.01, 2.0]
    rates = (0.1, 0.2, 0.4, 0.8)
    rows = [
        sign_row("full BPTT", r, s, data_error=e)
        for r, s, e in zip(rates, truth, (0.1, 0.1, 0.1, 0.1), strict=True)
    ]
    rows += [sign_row("TBPTT 4", r, s) for r, s in zip(rates, (-1, 1, -1, 1), strict=True)]
    rows += [
        sign_row("ARTBP 16", r, s, bias=b, bias_error=1.0)
        for r, s, b in zip(rates, truth, (0.1, 1.9, -2.1, 3.0), strict=True)
    ]
    found = {r["label"]: r for r in report.sign_rows(rows) if r["line"] == "constant"}
    assert found["TBPTT 4"]["wrong_rates"] == [0.2]
    assert found["TBPTT 4"]["unsure"] == found["full BPTT"]["unsure"] == 1
    assert found["full BPTT"]["wrong_rates"] == found["ARTBP 16"]["wrong_rates"] == []
    assert found["ARTBP 16"]["unsure"] == 3  # within 1.96 of its own standard error, 1
    assert (found["ARTBP 16"]["zero_inside"], found["ARTBP 16"]["tested"]) == (2, 4)
    assert found["TBPTT 4"]["turns_at"] == pytest.approx(np.sqrt(0.02))
    assert (found["ARTBP 16"]["wrong_draws"], found["TBPTT 4"]["wrong_draws"]) == ([0.25] * 4, [])
    share = 0.5 / 0.51
    assert found["full BPTT"]["turns_at"] == pytest.approx(0.2 * 2**share)


def test_intervals_over_few_trainings_are_wider():
    assert report.reach({"num_trainings": 1}) == pytest.approx(1.959964, rel=1e-6)
    assert report.reach({"num_trainings": 16}) == pytest.approx(2.131450, rel=1e-6)


def test_arms_and_what_they_cost():
    default = STUDY.default_config()
    arms = [parse(text) for text in default.arms]
    labels = [arm.label for arm in arms]
    assert labels == [
        "full BPTT",
        "TBPTT 4",
        "TBPTT 16",
        "TBPTT 64",
        "ARTBP 16, α = 4",
        "ARTBP 16, α = 6",
        "unbiased TBPTT 16, 1.5 windows, α = 4",
        "PES 16, 8 pairs",
    ]
    evaluations = [arm.evaluations(Size(2, 50)) for arm in arms]
    assert evaluations == pytest.approx([3, 3, 3, 3, 3, 3, 4, 17], rel=1e-6)
    pes = parse("pes(3, num_pairs=2, scale=0.1)")
    assert pes.evaluations(Size(2, 50)) == 5


def test_it_writes_its_files(tmp_path, capsys):
    arms = [*tiny_config().arms, "pes(3, num_pairs=2, scale=0.1)"]
    config = tiny_config("problems=('quadratic',)", f"arms={tuple(arms)}")
    STUDY.main(config, CommandLine(tmp_path, False, False, False))
    names = {path.name for path in tmp_path.iterdir()}
    assert names == workdirs.FILES | {"hyperparameters.png", "hyperparameters.svg"}
    rows = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    counts = {"landscape": 1, "signs": 2 * 3 * 4, "training": 5}
    assert {name: len(select(rows, part=name)) for name in counts} == counts
    assert all(r["inner_steps"] == 36 for r in select(rows, part="training"))
    table = (tmp_path / "table.md").read_text(encoding="utf-8")
    assert table.strip() in capsys.readouterr().out
    assert table.count("## ") == 2
