"""A run whose loss or gradient is not finite stops, says where, and keeps its checkpoint."""

import math
import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from problems import make_problem

import artbp
from experiments.common import divergence
from experiments.common.chunks import SegmentRecord
from experiments.common.errors import ExperimentError, TrainingDivergedError
from experiments.common.loop import train
from experiments.common.loop_options import LoopOptions
from experiments.common.metrics import Progress, read_metrics
from experiments.common.report import mean_and_deviation, median_and_range
from experiments.common.workdir import open_workdir
from experiments.memory import training as memory
from experiments.memory.report import reach

BAD_STEP = 47
OPTIMIZER = optax.sgd(1e-4)
ESTIMATOR = artbp.tbptt(
    lambda params, carry, x: (params * carry + x, carry),
    lambda params, y, target: (y - target) ** 2,
    truncation_length=10,
    block_size=16,
)


def regression(xs, tmp_path, driver="compiled", resume=False, evaluate=None, **options):
    """A scalar linear recurrence, in segments of at most 10 steps, 2 of them in a chunk."""
    return train(
        ESTIMATOR,
        OPTIMIZER,
        artbp.Stream(xs, jnp.zeros_like(xs)),
        jnp.asarray(0.5),
        jnp.zeros(1),
        rng_key=jax.random.key(0),
        workdir=open_workdir(tmp_path, {}, resume=resume),
        options=LoopOptions(
            num_epochs=1,
            segments_per_chunk=2,
            best_metric="bits" if evaluate else None,
            checkpoint_every_seconds=0.0,
            driver=driver,
            progress_bar=False,
            **options,
        ),
        evaluate=evaluate,
    )


@pytest.mark.parametrize("driver", ["compiled", "host"])
def test_nan_in_the_data(driver, tmp_path):
    xs = jnp.ones((100, 1)).at[BAD_STEP].set(jnp.nan)
    with pytest.raises(TrainingDivergedError) as caught:
        regression(xs, tmp_path, driver)
    error = caught.value
    # The state at step 48 is the first to hold the NaN: the fifth segment, 40 to 49.
    assert (error.update, error.time_step) == (4, 40)
    for words in (
        "update 4",
        "time step 40",
        "10 time steps",
        "mean loss nan",
        "compensation was 1,",
        "learning rate",
        "mean length",
        "clipping",
        "biases",
    ):
        assert words in str(error)
    rows = read_metrics(tmp_path / "metrics.jsonl")
    assert [row["update"] for row in rows] == [2, 4], "the chunk of the bad segment has no row"


def test_max_loss(tmp_path):
    with pytest.raises(TrainingDivergedError, match="above the limit 50"):
        regression(jnp.ones((100, 1)).at[BAD_STEP].set(100.0), tmp_path, max_loss=50.0)


@pytest.mark.parametrize(("weight", "named"), [(1.0, False), (2.0, True)])
def test_alpha_is_named_where_there_are_weights(weight, named):
    records = SegmentRecord(*(np.array([value]) for value in (3.0, 3, 3, 1.0, 1.0, weight, 0, 0)))
    error = divergence.diverged(records, Progress(), math.inf)
    assert "parameters that are not finite" in str(error)
    assert ("alpha" in str(error)) == named


def test_an_evaluation_that_is_not_finite(tmp_path):
    with pytest.raises(TrainingDivergedError, match=r"update 10, .* gave bits = nan"):
        regression(jnp.ones((100, 1)), tmp_path, evaluate=lambda params: {"bits": math.nan})


def test_last_good_checkpoint_stays(tmp_path):
    xs = jnp.ones((100, 1)).at[BAD_STEP].set(jnp.nan)
    messages = []
    for resume in (False, True, True):
        with pytest.raises(TrainingDivergedError) as caught:
            regression(xs, tmp_path, resume=resume)
        messages.append(str(caught.value))
        latest = sorted(p.name for p in (tmp_path / "checkpoints" / "latest").iterdir())
        assert latest == ["0", "2"], "of the start, and after the fourth update, the last good one"
    assert messages[0] == messages[1] == messages[2]


@pytest.mark.parametrize("driver", ["compiled", "host"])
def test_skip_leaves_out_one_update_and_begins_anew(driver, tmp_path):
    xs = jnp.ones((100, 1)).at[BAD_STEP].set(jnp.nan)
    result = regression(xs, tmp_path, driver, on_divergence="skip")
    # The same as the good segments before, and after, a new beginning: the carry is zeros there.
    params = regression(jnp.ones((40, 1)), tmp_path / "before").params
    anew = OPTIMIZER.init(params)
    state = ESTIMATOR.init(params, jnp.zeros(1), rng_key=jax.random.key(0))
    after = artbp.Stream(jnp.ones((50, 1)), jnp.zeros((50, 1)))
    estimate = jax.jit(ESTIMATOR.estimate)
    for _ in range(5):
        grads, state, _ = estimate(params, state, after)
        params = optax.apply_updates(params, OPTIMIZER.update(grads, anew)[0])
    np.testing.assert_allclose(result.params, params, rtol=1e-6)
    counters = result.progress
    assert (counters.updates, counters.skipped, counters.time_steps) == (9, 1, 100)
    rows = read_metrics(tmp_path / "metrics.jsonl")
    assert [row.get("skipped", 0) for row in rows] == [0, 0, 1, 0, 0, 0]
    assert all(row["loss"] is not None for row in rows[:5])


# One for each kind of inner state; the others with `-m ''`.
BEGIN_ANEW = ("tbptt_stored", "tbptt_reforward", "adaptive_tbptt", "unbiased_tbptt", "uoro", "pes")


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[] if name in BEGIN_ANEW else [pytest.mark.slow])
        for name, row in artbp.REGISTRY.items()
        if not row.segmentwise  # these have no inner state
    ],
)
def test_the_gradients_after_a_skip_are_those_of_a_new_sequence(name):
    """Also where a window is longer than the new sequence, and where a measurement is due."""
    num_before, num_after = 5, 5
    problem = make_problem("rnn", 60)
    estimator = artbp.REGISTRY[name].build(problem.cell, problem.loss_fn, 2)
    estimate = jax.jit(estimator.estimate)

    def gradients(state, stream, number):
        found = []
        for _ in range(number):
            grads, state, _ = estimate(problem.params, state, stream)
            found.append(grads)
        return found, state

    start = estimator.init(problem.params, problem.carry, rng_key=jax.random.key(0))
    _, state = gradients(start, problem.stream, num_before)
    anew = divergence.begin_anew(estimator, problem.params, state, jnp.asarray(True))
    found, _ = gradients(anew, problem.stream, num_after)
    # The same draws, on a stream that begins where the other one stands.
    start = start._replace(num_estimates=state.num_estimates)
    rest = jax.tree.map(lambda leaf: jnp.roll(leaf, -int(state.position), axis=0), problem.stream)
    expected, _ = gradients(start, rest, num_after)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), found, expected
    )
    going_on, _ = gradients(state, problem.stream, 1)
    assert not np.allclose(going_on[0]["readout"], expected[0]["readout"], rtol=1e-2)


def test_skip_stops_where_every_segment_is_bad(tmp_path, monkeypatch):
    monkeypatch.setattr(divergence, "MOST_SKIPPED", 3)
    xs = jnp.full((100, 1), jnp.nan)
    with pytest.raises(TrainingDivergedError, match="left out 3 updates in a row"):
        regression(xs, tmp_path, on_divergence="skip")
    rows = read_metrics(tmp_path / "metrics.jsonl")
    assert [(row["update"], row["loss"]) for row in rows] == [(0, None)]


def test_roll_back_takes_another_key_and_gives_up_in_the_end(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(divergence, "MOST_ROLL_BACKS", 2)
    xs = jnp.ones((100, 1)).at[BAD_STEP].set(jnp.nan)
    keys = []
    other_key = divergence.with_another_key

    def record(state, number):
        state = other_key(state, number)
        keys.append(jax.random.key_data(state.rng_key).tolist())
        return state

    monkeypatch.setattr(divergence, "with_another_key", record)
    with pytest.raises(TrainingDivergedError, match="gone back 2 times") as caught:
        regression(xs, tmp_path, on_divergence="roll_back")
    assert "\n" not in str(caught.value)
    assert len({str(key) for key in keys}) == 2
    rows = read_metrics(tmp_path / "metrics.jsonl")
    kinds = ["train", "train", "roll_back", "roll_back"]
    assert [(row["kind"], row["update"]) for row in rows] == list(
        zip(kinds, [2, 4, 4, 4], strict=True)
    )
    assert capsys.readouterr().err.count("goes on from its last checkpoint") == 2
    # What a resumed run does: the same error, and no further roll-back.
    with pytest.raises(TrainingDivergedError, match="gone back 2 times"):
        regression(xs, tmp_path, resume=True, on_divergence="roll_back")


def test_an_unknown_policy():
    with pytest.raises(ExperimentError, match="on_divergence is 'ignore': expected stop, skip"):
        LoopOptions(num_epochs=1, on_divergence="ignore")


def test_a_table_says_which_runs_are_not_finite():
    assert mean_and_deviation([1.0, math.nan, math.inf]) == "not finite in 2 of 3 runs"
    assert mean_and_deviation([1.0, 3.0], "{:.1f}") == "2.0 ± 1.4"
    assert median_and_range([2.0, math.nan, 1.0]) == "2 [1, ∞]"
    assert median_and_range([math.nan]) == "∞"
    assert median_and_range([12.0, 90.0, math.nan], worst=-math.inf) == "12 [−∞, 90]"


def test_a_network_of_nan_has_no_accuracy():
    """Its answer is always the first item, which is right by chance."""
    (params, _), *_ = memory.make_runs(
        types.SimpleNamespace(seed=0, num_tuning_runs=1, num_seeds=1, hidden_size=2)
    )
    stream = memory.make_stream(jax.random.key(0), 2, 3, 2)
    accuracy = jax.jit(memory.accuracy, static_argnums=2)
    assert np.isfinite(accuracy(params, stream, 3)).all()
    params["readout"] = jax.tree.map(lambda leaf: leaf * jnp.nan, params["readout"])
    assert np.isnan(accuracy(params, stream, 3)).all()
    assert reach(np.array([math.nan, 1.0]), (1, 2)) == 0
