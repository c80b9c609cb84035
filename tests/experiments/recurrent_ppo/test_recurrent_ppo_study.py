"""The experiment at a tiny size; the maze, the advantages and the loss by hand-worked cases."""

import json
import types
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import workdirs

import artbp
from experiments.common.arms import parse
from experiments.common.cli import CommandLine
from experiments.common.config import load_config
from experiments.common.metrics import read_metrics
from experiments.recurrent_ppo import maze, ppo, training
from experiments.recurrent_ppo.__main__ import STUDY
from experiments.recurrent_ppo.training import CELL, Curves, collect, init_params, make_stream

CONFIG = Path(__file__).parents[3] / "configs" / "recurrent_ppo" / "default.py"
TINY = (
    "num_tuning_runs=2",
    "num_seeds=2",
    "corridor_length=2",
    "num_rows=4",
    "rollout_length=12",
    "num_iterations=4",
    "num_epochs=2",
    "num_minibatches=2",
    "hidden_size=4",
    "arms=('tbptt(4)',)",
    "learning_rates=(3e-3,)",
)


def load(*overrides):
    return load_config(STUDY.default_config(), CONFIG, (*TINY, *overrides))


def test_writes_its_files(tmp_path, capsys):
    STUDY.main(load(), CommandLine(tmp_path / "run", False, False, None))
    files = workdirs.FILES | {"recurrent_ppo.png", "recurrent_ppo.svg"}
    assert {path.name for path in (tmp_path / "run").iterdir()} == files
    rows = json.loads((tmp_path / "run" / "results.json").read_text(encoding="utf-8"))
    assert read_metrics(tmp_path / "run" / "metrics.jsonl") == [{"kind": "result"} | rows[0]]
    table = (tmp_path / "run" / "table.md").read_text(encoding="utf-8")
    assert table in capsys.readouterr().out
    assert "| TBPTT 4 | 0.003" in table
    assert (len(rows[0]["returns"]), np.shape(rows[0]["curves"])) == (2, (2, 4))
    assert np.all(np.array(rows[0]["returns"]) <= 1)


def test_the_maze():
    """Two rows, a corridor of two steps: row 0 turns as its cue says, row 1 hits a wall first."""
    key, forward = jax.random.key(0), maze.FORWARD
    at = maze.begin(key, 2)._replace(cue=jnp.array([1, 0]), symbol=jnp.array([1, 0]))
    expected = [
        # actions, rewards, ends, right turns, positions
        ((forward, 1), (0, -0.1), (0, 0), (0, 0), (1, 0)),
        ((forward, forward), (0, 0), (0, 0), (0, 0), (2, 1)),
        ((forward, forward), (-0.1, 0), (0, 0), (0, 0), (2, 2)),
        ((1, 1), (1, -1), (1, 1), (1, 0), (0, 0)),
    ]
    for actions, rewards, ends, right, positions in expected:
        at, outcome = maze.step(key, at, jnp.array(actions), 2)
        np.testing.assert_allclose(outcome.reward, rewards)
        np.testing.assert_array_equal(outcome.is_end, np.array(ends, bool))
        np.testing.assert_array_equal(outcome.is_right, np.array(right, bool))
        np.testing.assert_array_equal(at.position, positions)
        np.testing.assert_array_equal(at.is_first, np.array(ends, bool))
        symbols = np.asarray(at.symbol)
        is_noise = (symbols >= 2) & (symbols < maze.JUNCTION)
        in_corridor = (np.array(positions) < 2) & ~np.array(ends, bool)
        np.testing.assert_array_equal(is_noise, in_corridor)
        np.testing.assert_array_equal(symbols == maze.JUNCTION, np.array(positions) == 2)
    np.testing.assert_array_equal(at.symbol, at.cue)


def test_advantages_stop_where_an_episode_ends():
    """γ = λ = 0.5. With an end: 3 + ½·2 − 1 = 3; 2 − 1 = 1; 1 + ½ − 1 + ¼·1 = 0.75."""
    rewards, values = jnp.array([[1.0, 1], [2, 2], [3, 3]]), jnp.ones((3, 2))
    is_end = jnp.array([[False, False], [True, False], [False, False]])
    found = ppo.advantages(rewards, is_end, values, jnp.array([2.0, 2.0]), 0.5, 0.5)
    # Without one: 3; 2 + ½ − 1 + ¼·3 = 2.25; 1 + ½ − 1 + ¼·2.25 = 1.0625.
    np.testing.assert_allclose(found, [[0.75, 1.0625], [1, 2.25], [3, 3]])


@pytest.mark.parametrize(
    ("ratio", "advantage", "gain"),
    [(1.5, 2.0, 2.4), (1.5, -2.0, -3.0), (0.5, 2.0, 1.0), (0.5, -2.0, -1.6), (1.1, 2.0, 2.2)],
)
def test_the_clipped_loss(ratio, advantage, gain):
    """A uniform policy over 3 actions; the value 3 is to be 1; ε = 0.2."""
    zeros = {"kernel": jnp.zeros((4, 3)), "bias": jnp.zeros(3)}
    params = {"policy": zeros, "value": {"kernel": jnp.zeros((4, 1)), "bias": jnp.array([3.0])}}
    old = jnp.log(1 / 3) - jnp.log(ratio)
    target = ppo.Target(jnp.array([1]), old[None], jnp.array([advantage]), jnp.array([1.0]))
    loss = ppo.make_loss(clip=0.2, value_weight=0.5, entropy_weight=0.1)
    expected = -gain + 0.5 * 0.5 * (3 - 1) ** 2 - 0.1 * np.log(3)
    np.testing.assert_allclose(loss(params, jnp.ones((1, 4)), target), [expected], rtol=1e-6)


def test_every_pass_reproduces_the_rollout(monkeypatch):
    """With a learning rate of 0 each pass computes the log probabilities that were recorded.

    So the carry is that of the rollout's first step, in the right rows, and is reset where an
    episode begins. The stub in place of an estimator measures it.
    """
    config, differences = load("corridor_length=1"), []

    def estimate(params, carry, stream):
        _, ys = artbp.unroll(CELL, params, carry, stream.xs, resets=stream.resets)
        log_probs = ppo.log_prob_of(ppo.heads(params, ys)[0], stream.targets.action)
        difference = jnp.max(jnp.abs(log_probs - stream.targets.log_prob))
        num_resets = jnp.sum(stream.resets[1:])
        jax.debug.callback(lambda *found: differences.append(found), difference, num_resets)
        info = types.SimpleNamespace(end_of_stream=jnp.ones((), bool))
        return jax.tree.map(jnp.zeros_like, params), carry, info

    def init(params, carry, *, rng_key, initial_carry):
        return carry

    init_heads = ppo.init_heads

    def large_heads(*given):  # they are nearly constant at first, whatever the carry is
        return jax.tree.map(lambda leaf: 50 * leaf, init_heads(*given))

    monkeypatch.setattr(ppo, "init_heads", large_heads)
    estimator = artbp.GradientEstimator(init, estimate)
    key = jax.random.key(0)
    params = training.first_params(config, key)
    jax.block_until_ready(training.train(config, estimator, params, 0.0, key))
    jax.effects_barrier()
    assert len(differences) == 4 * 2 * 2
    assert sum(num_resets for _, num_resets in differences) > 0
    np.testing.assert_allclose([difference for difference, _ in differences], 0, atol=1e-4)


def test_a_pass_of_full_bptt_is_the_gradient_of_the_mean_loss():
    config, key = load(), jax.random.key(0)
    params = init_params(key, config.hidden_size)
    carry = 0.5 * jnp.ones((2, config.hidden_size))
    _, _, rollout = collect(config, params, carry, maze.begin(key, 2), key)
    stream = make_stream(config, rollout, jnp.zeros(2))
    assert abs(np.mean(stream.targets.advantage)) < 1e-6
    assert np.std(stream.targets.advantage) == pytest.approx(1, rel=1e-4)
    params = jax.tree.map(lambda leaf: leaf + 0.1, params)  # those of a later update

    def mean_loss(params):
        _, ys = artbp.unroll(CELL, params, carry, stream.xs, resets=stream.resets)
        loss = ppo.make_loss(config.clip, config.value_weight, config.entropy_weight)
        return jnp.mean(jax.vmap(loss, (None, 0, 0))(params, ys, stream.targets))

    estimator = training.make_estimator(config, parse("bptt"))
    state = estimator.init(params, carry, rng_key=key)
    grads, _ = artbp.run_pass(estimator, params, state, stream)
    jax.tree.map(
        lambda found, expected: np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6),
        grads,
        jax.grad(mean_loss)(params),
    )


def test_the_return_counts_all_rewards_for_each_episode_that_ended():
    curves = Curves(np.array([[-1.0, 2, 3], [-5, -5, -5]]), np.array([[0, 1, 4], [0, 0, 0]]), None)
    np.testing.assert_allclose(training.mean_return(curves), [4 / 5, -np.inf])
    np.testing.assert_allclose(training.mean_return(curves, slice(2, None)), [3 / 4, -np.inf])


def test_the_rate_is_chosen_on_runs_that_are_not_reported():
    """With a stub in place of training: the best return of a run is at 3e-3 on average only."""
    config = load("num_tuning_runs=3", "num_seeds=2", "learning_rates=(1e-3, 3e-3, 1e-2)")
    best, given = iter([3e-3, 3e-3, 1e-2]), []

    def train_runs(params, rates, keys):
        given.append((np.asarray(rates), jax.random.key_data(keys).tolist()))
        found = np.zeros(len(keys))
        for run in range(3) if len(given) == 1 else ():
            part = slice(3 * run, 3 * run + 3)
            found[part] = -abs(np.log(rates[part] / next(best)))
        ones = np.ones((len(keys), config.num_iterations))
        return Curves(ones * found[:, None], ones, ones)

    result = training.train_arm(config, parse("tbptt(4)"), train_runs)
    assert result.choice.rate == 3e-3
    keys = jax.random.key_data(jax.random.split(jax.random.key(0), 5)).tolist()
    assert [part for _, part in given] == [[keys[i // 3] for i in range(9)], keys[3:]]
    np.testing.assert_allclose(given[0][0], 3 * [1e-3, 3e-3, 1e-2], rtol=1e-6)
    np.testing.assert_allclose(given[1][0], 2 * [3e-3], rtol=1e-6)
    assert result.curves.reward.shape == (2, config.num_iterations)
