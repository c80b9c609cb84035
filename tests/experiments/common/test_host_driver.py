"""Estimators that only the host can drive: the same trajectory, and the same resume."""

import signal

import jax
import numpy as np
import pytest
import tiny_run

from experiments.common.errors import TrainingInterruptedError
from experiments.common.metrics import read_metrics


@pytest.mark.slow
def test_same_trajectory_as_compiled_and_resumes(uninterrupted, tmp_path):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    result = tiny_run.run(whole, policy="pow2", driver="host")

    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
        result.params,
        uninterrupted[1].params,
    )
    rows, expected = (read_metrics(p / "metrics.jsonl") for p in (whole, uninterrupted[0]))
    for row, other in zip(rows, expected, strict=True):
        for name in ("kind", "epoch", "update", "time_step"):
            assert row[name] == other[name]

    with pytest.MonkeyPatch.context() as patch, pytest.raises(TrainingInterruptedError):
        tiny_run.interrupt_after_rows(patch, 3, signal.SIGINT)
        tiny_run.run(cut, policy="pow2", driver="host")
    resumed = tiny_run.run(cut, policy="pow2", driver="host", resume=True)
    tiny_run.assert_same_outcome(tiny_run.outcome(cut, resumed), tiny_run.outcome(whole, result))
