"""What clipping does to the gradients of a tiny run."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import artbp
from artbp.contrib.clipping import LengthBins
from experiments.common.arms import Arm
from experiments.ptb_study import limits

NUM_STEPS = 100


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(limits, "_SETTLING", 20)
    monkeypatch.setattr(limits, "CLIPPED_STEPS", NUM_STEPS)
    monkeypatch.setattr(limits, "NUM_DRAWS", 3)


def test_the_sizes_are_those_of_plain_gradients():
    def cell(params, carry, x):
        carry = jnp.tanh(params["w"] * carry + x)
        return carry, carry

    def loss_fn(params, y, target):
        return jnp.square(params["out"] * y - target)

    num_steps, length, normalizer = 7, 3, 6.0
    xs = np.sin(np.arange(2 * num_steps, dtype=np.float32)).reshape(num_steps, 2)
    # So large that the gradient asks for larger outputs: some largest entries are negative.
    targets = 5 * np.sign(xs)
    params, carry = {"w": jnp.array(0.7), "out": jnp.array(1.3)}, jnp.zeros(2)

    def loss(flat, carry, window):
        params, total = {"w": flat[0], "out": flat[1]}, 0.0
        for x, target in zip(xs[window], targets[window], strict=True):
            carry, y = cell(params, carry, x)
            total += jnp.sum(loss_fn(params, y, target)) / normalizer
        return total, carry

    expected, after = [], carry
    for start in range(0, num_steps, length):
        gradient, after = jax.grad(loss, has_aux=True)(
            jnp.array([0.7, 1.3]), after, slice(start, start + length)
        )
        expected.append(np.asarray(gradient))
    estimator = artbp.tbptt(cell, loss_fn, truncation_length=length, normalizer=normalizer)
    found = limits.segment_sizes(
        estimator, params, carry, artbp.Stream(xs, targets), jax.random.key(0)
    )
    assert len(expected) == 3
    assert (np.max(expected, axis=1) < np.abs(expected).max(axis=1)).any()
    np.testing.assert_allclose(found["max_norm"], np.linalg.norm(expected, axis=1), rtol=1e-5)
    np.testing.assert_allclose(found["max_value"], np.abs(expected).max(axis=1), rtol=1e-5)


def test_each_estimator_of_a_run_is_clipped_at_the_sizes_of_tbptts_segments(
    finished_run, small, monkeypatch
):
    measured, normalizers = [], []
    run, build = limits.trained(finished_run[0], None), Arm.build

    def record(arm, cell, loss_fn, normalizer):
        normalizers.append(normalizer)
        return build(arm, cell, loss_fn, normalizer=normalizer)

    def sizes(estimator, params, carry, stream, rng_key):
        measured.append(stream.xs.shape)
        return {"max_norm": np.array([0.0, 0.04, 9.0]), "max_value": np.array([0.0, 0.01, 9.0])}

    monkeypatch.setattr(Arm, "build", record)
    monkeypatch.setattr(limits, "segment_sizes", sizes)
    found = limits.clipping(run)
    assert measured == [(NUM_STEPS, 4)]  # all rows
    assert set(normalizers) == {50 * 4}
    thresholds = [{"max_norm": 0.04}, {"max_norm": 0.08}, {"max_value": 0.01}, {"max_value": 0.02}]
    names = ["TBPTT 50, offset drawn", "ARTBP 50, α = 4", "No compensation 50, α = 4"]
    assert [(row["arm"], row["threshold"]) for row in found] == [
        (n, t) for n in names for t in thresholds
    ]
    tbptt, artbp_, uncompensated = (row["report"] for row in found[::4])
    # The same boundaries, and other gradients.
    np.testing.assert_array_equal(artbp_.by_length.count, uncompensated.by_length.count)
    assert artbp_.norm_lost != uncompensated.norm_lost
    assert not tbptt.by_length.count[tbptt.by_length.shortest > 50].any()
    assert artbp_.by_length.count.sum() != tbptt.by_length.count.sum()
    assert 0 < tbptt.norm_lost < 1

    lines = limits.clipping_section({"a-run": found}).splitlines()
    [line] = [x for x in lines if x.startswith("| a-run | TBPTT 50, offset drawn | norm 0.04 |")]
    low, high = (float(x) for x in line.split("[")[1].split("]")[0].split(", "))
    bias = tbptt.against_unclipped.relative_bias
    # Student's t of 2 degrees of freedom, 95 %.
    half_width = 4.303 * tbptt.against_unclipped_error.relative_bias
    np.testing.assert_allclose((low, high), (bias - half_width, bias + half_width), atol=6e-4)
    kept = [f"{100 * r.against_unclipped.projection:.0f} %" for r in (tbptt, artbp_)]
    start = f"- a-run, clipped to the median norm: TBPTT 50, offset drawn {kept[0]}; "
    [line] = [x for x in lines if x.startswith(start)]
    assert f"ARTBP 50, α = 4 {kept[1]}; " in line


def test_a_short_text_has_no_section(finished_run):
    run = limits.trained(finished_run[0], None)
    assert limits.clipping(run) == [] and limits.clipping_section({"a-run": []}) == ""
    assert "Clipping" not in limits.markdown({"a-run": run})


def test_shares_by_length_count_segments_and_not_bins():
    by_length = LengthBins(
        shortest=2 ** np.arange(7),
        count=np.array([3, 1, 0, 0, 6, 0, 2]),
        share_bound=np.array([0.0, 1.0, np.nan, np.nan, 0.5, np.nan, 1.0]),
        share_of_steps=np.ones(7),
        norm_lost=np.ones(7),
    )
    np.testing.assert_array_equal(limits.shares_by_length(by_length), [0.25, 0.5, 1.0, np.nan])
