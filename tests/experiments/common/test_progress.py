import dataclasses
import json

import numpy as np
import pytest

from experiments.common.chunks import SegmentRecord
from experiments.common.metrics import Progress, progress_bar

RECORDS = SegmentRecord(
    loss_sum=np.array([6.0, 2.0], np.float32),
    num_losses=np.array([6, 2], np.int32),
    length=np.array([3, 1], np.int32),
    gradient_norm=np.array([2.0, 5.0], np.float32),
    max_compensation=np.array([1.5, 1.0], np.float32),
    max_weight=np.array([2.25, 1.0], np.float32),
    end_of_stream=np.array([False, True]),
    healthy=np.array([True, True]),
)


def test_counters_and_their_way_through_json():
    progress = Progress()
    progress.count(RECORDS)
    assert (progress.chunks, progress.updates, progress.time_steps) == (1, 2, 4)
    assert (progress.epochs, progress.epoch_loss_sum, progress.epoch_num_losses) == (1, 8.0, 8)
    assert Progress(**json.loads(json.dumps(dataclasses.asdict(progress)))) == progress


def test_summary_weighs_losses_not_segments():
    row = Progress().count(RECORDS._replace(loss_sum=np.array([6.0, 10.0])))
    assert row["loss"] == pytest.approx(2.0)
    assert row["bits"] == pytest.approx(2.0 / np.log(2))
    assert (row["mean_length"], row["max_length"]) == (2.0, 3)
    assert (row["max_compensation"], row["max_weight"]) == (1.5, 2.25)
    assert row["max_gradient_norm"] == 5.0


def test_bar_shows_loss_bits_speed_and_time_left(capsys):
    row = {"epoch": 1, "time_step": 60, "loss": 2.0, "bits": 2.885}
    with progress_bar(100, done_steps=20, show=True) as advance:
        advance(row)
        advance(row | {"time_step": 70})
    shown = capsys.readouterr().err
    assert "loss=2.0000" in shown and "bits=2.8850" in shown
    assert "70.0/100" in shown and "step/s" in shown and "<" in shown


def test_bar_is_hidden_away_from_a_terminal(capsys):
    with progress_bar(100, done_steps=0, show=None):
        pass
    assert capsys.readouterr().err == ""
