import dataclasses
import json

import pytest

from experiments.common.errors import CheckpointError, DamagedCheckpointError
from experiments.common.metrics import MetricsWriter, Progress, check_rows, read_metrics


def row(update, **values):
    return {"kind": "train", "update": update, **values}


def test_rows_beyond_the_cursor_are_cut_on_resume(tmp_path):
    path = tmp_path / "metrics.jsonl"
    with MetricsWriter(path) as metrics:
        metrics.write(row(1, loss=0.1))
        cursor = metrics.cursor()
        metrics.write(row(2, loss=0.2))
    assert cursor == len(path.read_bytes().splitlines(keepends=True)[0])
    with MetricsWriter(path, cursor=cursor) as metrics:
        assert metrics.cursor() == cursor
        metrics.write(row(2, loss=0.25))
    assert read_metrics(path) == [row(1, loss=0.1), row(2, loss=0.25)]


def test_a_run_without_a_checkpoint_starts_an_empty_file(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"kind": "train"}\n{"ki')
    with MetricsWriter(path):
        pass
    assert path.read_text() == ""


def test_rows_are_readable_while_the_run_goes_on(tmp_path):
    path = tmp_path / "metrics.jsonl"
    with MetricsWriter(path) as metrics:
        metrics.write(row(1))
        assert read_metrics(path) == [row(1)]


def test_a_line_cut_by_a_kill_is_left_out(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"update": 1}\n{"upda')
    assert read_metrics(path) == [{"update": 1}]


def test_a_file_shorter_than_the_cursor(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text("{}\n")
    with pytest.raises(CheckpointError, match="has 3 bytes"):
        MetricsWriter(path, cursor=100)
    assert path.read_text() == "{}\n"


def test_rows_are_checked_against_the_counters(tmp_path):
    path = tmp_path / "metrics.jsonl"
    for update in (1, 2):
        with MetricsWriter(path, cursor=path.stat().st_size if path.exists() else 0) as metrics:
            metrics.write(row(update, time_step=10 * update))
            cursor, sha256 = metrics.cursor(), metrics.hash()
    progress = Progress(
        chunks=2, updates=2, time_steps=20, metrics_cursor=cursor, metrics_hash=sha256
    )
    check_rows(path, progress)
    check_rows(tmp_path / "none", Progress())
    for name in ("chunks", "time_steps", "updates"):
        wrong = dataclasses.replace(progress, **{name: 3})
        with pytest.raises(DamagedCheckpointError, match="it counts "):
            check_rows(path, wrong)
    path.write_text(path.read_text().replace('"update": 1', '"update": 7'))
    with pytest.raises(DamagedCheckpointError, match="was changed"):
        check_rows(path, progress)
    path.write_text("")
    with pytest.raises(DamagedCheckpointError, match="has 0 bytes"):
        check_rows(path, progress)


def test_every_line_is_json_that_any_reader_takes(tmp_path):
    path = tmp_path / "metrics.jsonl"
    with MetricsWriter(path) as metrics:
        time = {"steps_per_second": float("inf")}
        metrics.write(row(1, loss=float("nan"), time=time, losses=[[1.0, float("nan")]]))

    def refuse(constant):
        raise ValueError(constant)

    (line,) = path.read_text().splitlines()
    parsed = json.loads(line, parse_constant=refuse)
    assert parsed == row(1, loss=None, time={"steps_per_second": None}, losses=[[1.0, None]])


def test_tensorboard_on_request(tmp_path):
    with MetricsWriter(tmp_path / "metrics.jsonl", tensorboard_path=tmp_path / "tb") as metrics:
        metrics.write(row(1, loss=0.5, time={"steps_per_second": 10.0}))
    (events,) = (tmp_path / "tb").iterdir()
    written = events.read_bytes()
    assert b"train/loss" in written and b"train/steps_per_second" in written
