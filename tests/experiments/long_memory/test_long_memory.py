"""The tasks and their scores, the costs of the arms, and the experiment at a tiny size."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from artbp import cells, truncation
from experiments.common.cli import CommandLine
from experiments.common.config import load_config
from experiments.common.errors import ConfigError
from experiments.long_memory import model
from experiments.long_memory.__main__ import STUDY
from experiments.long_memory.arms import arms, run_again
from experiments.long_memory.problems import LENGTH, PROBLEMS, bigram_entropy
from experiments.long_memory.training import TBPTT_WORK, Program, make_streams, num_steps
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
    # A step of the second arm costs twice as much, so it reads half of the sequences.
    config = load("arms=('elstm_tbptt', 'elstm_rtrl')")
    STUDY.main(config, CommandLine(workdir, False, False, None))
    rows = json.loads((workdir / "results.json").read_text(encoding="utf-8"))
    assert [row["num_steps"] for row in rows] == [8 * LENGTH, 4 * LENGTH]
    for row in rows:
        losses = np.array(row["losses"])
        assert losses.shape == (2, 4)
        assert np.isfinite(losses).all()
        assert len(set(row["scores"])) == 2
    table = (workdir / "table.md").read_text(encoding="utf-8")
    assert "TBPTT 16, element-wise LSTM" in table
    assert (workdir / "long_memory.png").is_file()


@pytest.mark.parametrize("name", ["r_lstm", "unbiased_critic"])
def test_params_of_arms_with_more_than_a_cell(name):
    config, problem = load(), PROBLEMS["adding"]("generated")
    program = Program(problem, arms(config.window)[name], config)
    keys = jax.random.split(jax.random.key(0))
    params = jax.tree.map(lambda leaf: leaf[0], program.init(problem, keys))
    carry = program.cell.initial_carry(params["cell"], config.batch)
    state = program.estimator.init(params, carry, rng_key=jax.random.key(1))
    stream = problem.test(config.batch)
    grads, _, _ = jax.eval_shape(program.estimator.estimate, params, state, stream)
    assert jax.tree.map(np.shape, grads) == jax.tree.map(np.shape, params)


def test_one_program_serves_all_tasks_with_symbols():
    config = load("batch=1", "num_sequences=4")
    problems = [PROBLEMS[name]("generated") for name in ("copy", "digits", "characters")]
    assert len({(one.loss_fn, one.input_size, one.output_size) for one in problems}) == 1

    def kinds(problem):
        stream = make_streams(problem, 4 * LENGTH, config)
        leaves, treedef = jax.tree.flatten(stream)
        return treedef, [(leaf.shape, leaf.dtype) for leaf in leaves]

    first, *others = map(kinds, problems)
    assert others == [first] * 2


def test_a_training_too_short_for_its_history_is_refused():
    """Parts of the history without the end of a sequence would have no loss to choose a rate by."""
    with pytest.raises(ConfigError, match=r"num_points is 4.* 1, .* target_propagation"):
        STUDY.check_config(load("arms=('tbptt', 'target_propagation')", "num_sequences=8"))
    with pytest.raises(ConfigError, match=r"num_points is 4.* 3, .* tbptt_1"):
        STUDY.check_config(load("arms=('tbptt_1',)", "num_sequences=3"))


class Counted:
    """The LSTM, with a count of its steps: a forward step is 1 and a backward step 2."""

    def __init__(self, cell):
        self.cell, self.count = cell, 0

    def add(self, number, tree):
        """Counts each row of a vmap, because the callback is given a value of this step."""

        def add(value):
            self.count += number

        jax.debug.callback(add, jax.tree.leaves(tree)[0].ravel()[0])

    def __call__(self, params, carry, x):
        @jax.custom_vjp
        def counted(carry):
            self.add(1, carry)
            return carry

        def backward(_, cotangent):
            self.add(2, cotangent)
            return (cotangent,)

        counted.defvjp(lambda carry: (counted(carry), None), backward)
        return self.cell(params, counted(carry), x)

    def recurrence(self, params):
        counting, own = self, self.cell.recurrence(params)

        class CountedRecurrence:
            def __getattr__(self, name):
                return getattr(own, name)

            def step(self, carry, u):
                counting.add(1, carry)
                return own.step(carry, u)

            def pull_back(self, local, cotangent, y_cotangent):
                counting.add(2, cotangent)
                return own.pull_back(local, cotangent, y_cotangent)

        return CountedRecurrence()


# The allowed difference is that of random lengths from their means.
COUNTED = {
    "unbiased": 0.1,
    "bptt": 0,
    "tbptt": 0,
    "tbptt_1": 0,
    "artbp": 0.1,
    "tbptt_critic": 0,
    "target_propagation": 0,
    "nres": 0,
}


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=[] if n == "unbiased" else [pytest.mark.slow]) for n in COUNTED],
)
def test_the_work_of_an_arm_is_the_steps_that_its_program_makes(name, monkeypatch):
    """Without critic. Decoders and arms that run forward in time are not counted."""
    config, problem = load("num_sequences=40", "batch=1"), PROBLEMS["adding"]("generated")
    arm = dataclasses.replace(arms(config.window)[name], has_critic=False)
    counted = Counted(cells.lstm.with_params(lambda params: params["cell"]))
    own = model.CELLS["lstm"]
    monkeypatch.setitem(model.CELLS, "lstm", lambda *given: own(*given)._replace(apply=counted))
    program = Program(problem, arm, config)
    params = program.init(problem, jax.random.split(jax.random.key(0), 1))
    stream = make_streams(problem, program.num_steps, config)
    one = jax.tree.map(lambda leaf: leaf[0], (params, stream))
    jax.jit(program._train_one)(1e-3, *one, jax.random.key(1))
    jax.effects_barrier()
    assert counted.count / program.num_steps == pytest.approx(arm.work, rel=COUNTED[name])
