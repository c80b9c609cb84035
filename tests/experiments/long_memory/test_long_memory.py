"""The tasks and their scores, the costs of the arms, and the experiment at a tiny size."""

import json

import jax
import numpy as np
import pytest

from artbp import truncation
from experiments.common.cli import CommandLine
from experiments.common.config import load_config
from experiments.long_memory.__main__ import STUDY
from experiments.long_memory.arms import arms, run_again
from experiments.long_memory.problems import LENGTH, PROBLEMS, bigram_entropy
from experiments.long_memory.training import TBPTT_WORK, Training, num_steps
from experiments.ptb.data import corpus_from_texts

TINY = (
    "tasks=('adding',)",
    "arms=('elstm_tbptt',)",
    "hidden_size=2",
    "batch=2",
    "num_sequences=8",
    "num_points=4",
    "test_rows=3",
    "learning_rates=(1e-2,)",
    "num_seeds=2",
)


def load(*overrides):
    return load_config(STUDY.default_config(), None, (*TINY, *overrides))


def test_copy_memory_counts_at_the_two_recalled_symbols():
    stream = PROBLEMS["copy"]("generated").stream(0, 3 * LENGTH, 2)
    xs, targets, resets, mask = (
        array.reshape(3, LENGTH, 2)
        for array in (stream.xs, stream.targets, stream.resets, stream.mask)
    )
    np.testing.assert_array_equal(targets[:, -2:], xs[:, :2])
    assert mask[:, -2:].all()
    assert not mask[:, :-2].any()
    assert resets[:, 0].all()


def test_shares_of_right_answers():
    problem = PROBLEMS["copy"]("generated")
    test = problem.test(4)
    answers = np.array(test.targets)
    answers[:-2] = 0  # blank, which does not count
    answers[-1, 1] = 8  # one symbol of eight missed
    assert float(problem.score(np.eye(9)[answers], test)) == pytest.approx(100 * 7 / 8)


def test_bits_of_a_guess_that_is_uniform_on_all_symbols():
    problem = PROBLEMS["characters"]("generated")
    test = problem.test(2)
    outputs = np.zeros((*test.xs.shape, problem.output_size), np.float32)
    assert float(problem.score(outputs, test)) == pytest.approx(np.log2(problem.output_size))
    assert problem.best < problem.chance < np.log2(problem.output_size)


def test_the_entropy_of_a_character_given_the_one_before():
    corpus = corpus_from_texts("ab\n" * 9, "ab\n" * 9, "ab\n" * 9)
    assert bigram_entropy(corpus) == 0
    corpus = corpus_from_texts(*["ab\nac\n" * 1000] * 3)  # one of three is a coin
    assert bigram_entropy(corpus) == pytest.approx(1 / 3, abs=1e-3)


def test_all_trainings_have_the_same_work_up_to_a_sequence():
    config = load("num_sequences=1500")
    budget = TBPTT_WORK * 1500 * LENGTH
    table = arms(config.window)
    assert set(STUDY.default_config().arms) == set(table)
    for arm in table.values():
        steps = num_steps(arm, config)
        assert steps % LENGTH == 0
        assert budget - arm.work * LENGTH < arm.work * steps <= budget + 1e-6


def test_the_share_of_steps_that_blocks_run_again():
    assert run_again(truncation.fixed(40), 16) == pytest.approx(32 / 40)
    assert run_again(truncation.fixed(16), 16) == 0


def test_from_end_to_end(tmp_path):
    workdir = tmp_path / "run"
    STUDY.main(load(), CommandLine(workdir, False, False, None))
    (row,) = json.loads((workdir / "results.json").read_text(encoding="utf-8"))
    assert row["num_steps"] == 8 * LENGTH
    losses = np.array(row["losses"])
    assert losses.shape == (2, 4)
    assert np.isfinite(losses).all()
    assert len(set(row["scores"])) == 2
    table = (workdir / "table.md").read_text(encoding="utf-8")
    assert "TBPTT 16, element-wise LSTM" in table
    assert (workdir / "long_memory.png").is_file()


@pytest.mark.parametrize("name", ["r_lstm", "unbiased_critic"])
def test_params_of_arms_with_more_than_a_cell(name):
    config = load()
    training = Training(PROBLEMS["adding"]("generated"), arms(config.window)[name], config)
    params = jax.tree.map(lambda leaf: leaf[0], training.init(jax.random.split(jax.random.key(0))))
    carry = training.cell.initial_carry(params["cell"], config.batch)
    state = training.estimator.init(params, carry, rng_key=jax.random.key(1))
    stream = training.problem.test(config.batch)
    grads, _, _ = jax.eval_shape(training.estimator.estimate, params, state, stream)
    assert jax.tree.map(np.shape, grads) == jax.tree.map(np.shape, params)
