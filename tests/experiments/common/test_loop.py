"""The training loop against a plain Python loop, and what it promises of chunks and epochs."""

import jax
import numpy as np
import optax
import pytest
import tiny_run

import artbp
from experiments.common.errors import ExperimentError
from experiments.common.loop_options import LoopOptions
from experiments.common.metrics import read_metrics


def test_equals_a_plain_python_loop(uninterrupted):
    path, result = uninterrupted
    params, stream = tiny_run.make_params(), tiny_run.make_stream()
    estimator, optimizer = tiny_run.make_estimator(), tiny_run.default_optimizer()
    carry = artbp.cells.lstm.initial_carry(params["lstm"], tiny_run.BATCH)
    state = estimator.init(params, carry, rng_key=jax.random.key(2))
    opt_state = optimizer.init(params)

    @jax.jit
    def step(params, opt_state, state):
        grads, state, info = estimator.estimate(params, state, stream)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, state, info

    epochs, loss_sum, num_losses, losses = 0, 0.0, 0, []
    while epochs < 2:
        params, opt_state, state, info = step(params, opt_state, state)
        loss_sum, num_losses = loss_sum + float(info.loss_sum), num_losses + int(info.num_losses)
        if info.end_of_stream:
            losses.append(loss_sum / num_losses)
            epochs, loss_sum, num_losses = epochs + 1, 0.0, 0

    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), result.params, params)
    rows = read_metrics(path / "metrics.jsonl")
    evaluations = [row for row in rows if row["kind"] == "evaluation"]
    np.testing.assert_allclose([row["train_loss"] for row in evaluations], losses, rtol=1e-5)


def test_every_time_step_is_trained_once_per_epoch_and_chunks_end_with_the_epoch(uninterrupted):
    path, result = uninterrupted
    rows = [row for row in read_metrics(path / "metrics.jsonl") if row["kind"] == "train"]
    for epoch in (1, 2):
        segments = [row["segments"] for row in rows if row["epoch"] == epoch]
        assert all(count == 5 for count in segments[:-1]) and segments[-1] <= 5
        steps = [row["segments"] * row["mean_length"] for row in rows if row["epoch"] == epoch]
        assert round(sum(steps)) == tiny_run.STEPS
    # Otherwise the test above has not seen a chunk that an epoch cuts short.
    assert any(row["segments"] < 5 for row in rows)
    assert result.progress.time_steps == 2 * tiny_run.STEPS == rows[-1]["time_step"]
    assert result.progress.updates == sum(row["segments"] for row in rows)


def test_bits_are_nats_over_ln_2(uninterrupted):
    row = read_metrics(uninterrupted[0] / "metrics.jsonl")[0]
    assert row["bits"] == pytest.approx(row["loss"] / np.log(2))


def test_chunk_length_changes_rows_but_not_parameters(uninterrupted, tmp_path):
    result = tiny_run.run(tmp_path, segments_per_chunk=100)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5),
        result.params,
        uninterrupted[1].params,
    )
    assert (
        len(read_metrics(tmp_path / "metrics.jsonl")) == 6
    )  # a chunk, a measurement, an evaluation for each epoch


def test_arguments_are_not_donated(tmp_path):
    params = tiny_run.make_params()
    tiny_run.run(tmp_path, params=params, num_epochs=1)
    jax.block_until_ready(jax.tree.map(lambda leaf: leaf + 1, params))


def test_best_parameters_are_those_of_the_best_epoch(tmp_path, uninterrupted):
    result = tiny_run.run(tmp_path, best_metric="negative_loss")
    _, rows = tiny_run.outcome(tmp_path, result)
    values = {row["epoch"]: row["valid_loss"] for row in rows if row["kind"] == "evaluation"}
    best = max(values, key=lambda epoch: values[epoch])
    assert best == 1, "the loss falls, so that the last epoch must not be the best one here"
    assert (result.progress.best_epoch, result.progress.best_value) == (1, -values[1])
    assert [row["is_best"] for row in rows[:-1] if row["kind"] == "evaluation"] == [True, False]
    arrays, record = tiny_run.outcome(tmp_path, result)[0], rows[-1]
    assert record["epoch"] == 1
    first_epoch = tiny_run.run(tmp_path / "one", num_epochs=1)
    np.testing.assert_array_equal(
        arrays["['best']['readout']"], np.asarray(first_epoch.params["readout"])
    )


def test_unknown_best_metric(tmp_path):
    with pytest.raises(ExperimentError, match=r"'bpc'.*valid_loss"):
        tiny_run.run(tmp_path, best_metric="bpc")


@pytest.mark.parametrize("wrong", [{"num_epochs": 0}, {"segments_per_chunk": 0}, {"driver": "gpu"}])
def test_options_out_of_range(wrong):
    with pytest.raises(ExperimentError, match=next(iter(wrong))):
        LoopOptions(**({"num_epochs": 1} | wrong))


def test_measurements_change_no_parameter_and_come_when_they_are_due(uninterrupted, tmp_path):
    measured, rows = tiny_run.outcome(*uninterrupted)
    result = tiny_run.run(tmp_path, measured=False)
    unmeasured, other_rows = tiny_run.outcome(tmp_path, result)
    tiny_run.assert_same_outcome(
        (unmeasured, other_rows), (measured, [r for r in rows if r["kind"] != "measurement"])
    )
    # Chunks of 5 updates and of 4 at the end of an epoch; every 7 updates at the least.
    updates = [row["update"] for row in rows if row["kind"] == "measurement"]
    assert updates == [10, 20, 29, 39, 48]
    assert all(row["gradient_norm"] > 0 for row in rows if row["kind"] == "measurement")
