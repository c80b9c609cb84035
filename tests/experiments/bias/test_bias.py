"""The bias laboratory at a tiny size, and the verdicts that its table states."""

import itertools
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import workdirs

import artbp
from artbp import truncation
from experiments.bias import look_backs, measure, report, systems
from experiments.bias.__main__ import STUDY
from experiments.bias.config import NAMES
from experiments.common.cli import CommandLine
from experiments.common.config import load_config

CONFIG = Path(__file__).parents[3] / "configs" / "bias" / "default.py"
TINY = (
    "systems=('short memory',)",
    "window_length=32",
    "num_windows=8",
    "noisy_arms=('artbp(4, alpha=4)',)",
    "tested_arms=('artbp(4, alpha=4)',)",
    "online_arms=('rtrl(4)', 'snap1(4)', 'uoro(4)')",
    "num_variance_windows=2",
    "num_samples=2",
    "max_draws=128",
    "num_keys=3",
    "rows=2",
    "short_memory=4",
)


def load(*overrides):
    return load_config(STUDY.default_config(), CONFIG, (*TINY, *overrides))


def run(workdir, *overrides):
    STUDY.main(load(*overrides), CommandLine(workdir, False, False, False))


def test_writes_its_files(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(measure, "enumeration_error", lambda system, law, gradient: 0.0)
    run(tmp_path)
    files = workdirs.FILES | {"bias.png", "bias.svg"}
    assert {path.name for path in tmp_path.iterdir()} == files
    rows = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    names = [row["estimator"] for row in rows]
    assert names[:5] == ["BPTT", "TBPTT 1", "TBPTT 2", "TBPTT 4", "TBPTT 8"]
    assert "ARTBP 4, α = 4" in names
    assert names[-3:] == ["RTRL", "SnAp-1", "UORO"]
    by_name = {row["estimator"]: row for row in rows}
    # The gradient of what looks back one step is too small; looking farther, it is less so.
    biases = [by_name[f"TBPTT {k}"]["on_window"] for k in (1, 2, 4, 8)]
    assert all(-1 < a < b < 0 for a, b in itertools.pairwise(biases))
    tested = by_name["ARTBP 4, α = 4"]
    assert tested["num_draws"] == 128
    assert abs(tested["on_window"]) < tested["on_window_half_width"]
    assert abs(by_name["RTRL"]["on_window"]) < 1e-12
    assert abs(by_name["SnAp-1"]["on_window"]) < 1e-12  # one state a row: nothing is left out
    assert by_name["UORO"]["relative_noise"] > 0
    unbiased = [row for row in rows if row["kind"] == "unbiased tbptt"]
    assert [row["length"] for row in unbiased] == [8] * 4
    table = (tmp_path / "table.md").read_text(encoding="utf-8")
    assert table in capsys.readouterr().out
    assert "Data noise is" in table


def test_enumeration_finds_no_bias(float64):
    system = systems.SYSTEMS["short memory"](load(), jax.random.key(0))
    gradient = measure.flat_gradient(system, measure.first_window(system, 9))
    law = truncation.polynomial(4, 4)
    assert measure.enumeration_error(system, law, gradient) < 1e-12
    assert measure.enumeration_error(system, law, 1.01 * gradient) > 5e-3  # the control


def test_look_backs_have_no_bias(float64):
    """Over all look-backs of a window of 4·8 steps, and over drawn ones."""
    system = systems.SYSTEMS["short memory"](load(), jax.random.key(0))
    window = measure.first_window(system, 32)
    gradient = measure.flat_gradient(system, window)
    law = truncation.geometric(4 / 3)
    estimates = look_backs.all_estimates(system, window, law, 8)
    assert estimates.shape == (4, 4, 1)
    assert look_backs.enumeration_error(estimates, law, gradient) < 1e-12
    other = truncation.geometric(2)  # the control: weights of another law
    assert look_backs.enumeration_error(estimates, other, gradient) > 1e-2
    along = estimates @ gradient / (gradient @ gradient)
    drawn = look_backs.drawn_bias(along, law, 0.05, 10**6, 0.999, jax.random.key(1))
    bias, half_width, num_draws = drawn
    assert abs(bias) < half_width <= 0.05
    assert num_draws < 10**6
    # The exact deviation: that of the draws, within the error of a sample of this size.
    again = [
        look_backs.drawn_bias(along, law, 0.05, 10**6, 0.999, jax.random.key(i))[0]
        for i in range(2, 22)
    ]
    np.testing.assert_allclose(np.std(again), half_width / 3.29, rtol=0.4)
    # A law that reaches less far than its weights say is seen.
    shorter = truncation.replay([1], law)
    assert look_backs.drawn_bias(along, shorter, 0.05, 10**6, 0.999, jax.random.key(1))[0] < -0.05


def test_bias_on_a_window_in_closed_form(float64):
    """s ← s + θ with loss s at every step: looking back K steps counts K in place of t."""

    def cell(theta, carry, x):
        carry = carry + theta
        return carry, carry

    stream = artbp.Stream(None, num_steps=32)
    system = systems.System(
        "", cell, lambda theta, y, target: y, jnp.asarray(1.0), jnp.asarray(0.0), stream, True
    )
    whole = 32 * 33 / 2
    gradient = measure.flat_gradient(system, stream)
    np.testing.assert_allclose(gradient, [whole], rtol=1e-12)
    (found,) = measure.biases_on_window(system, stream, gradient, [16])
    # Offset o: segments of 16 − o, 16 and o steps, of n(n + 1)/2 each.
    cut = np.mean([sum(n * (n + 1) / 2 for n in (16 - o, 16, o)) for o in range(16)])
    np.testing.assert_allclose(found, cut / whole - 1, rtol=1e-12)


def test_verdicts():
    rows = [
        {"system": "p", "kind": "tbptt", "length": 4, "bias_interval": [0.1, 0.2]},
        {"system": "p", "kind": "tbptt", "length": 16, "bias_interval": [0.0, 0.2]},
        {"system": "p", "kind": "tbptt", "length": 32, "bias_interval": [0.1, 0.2]},
    ]
    for bias, half_width in ((0.01, 0.02), (0.03, 0.02), (0.01, 0.05)):
        rows.append(
            {
                "system": "p",
                "kind": "artbp",
                "length": 16,
                "on_window": bias,
                "on_window_half_width": half_width,
                "tbptt_on_window": -0.2,
            }
        )
    (verdict,) = report.verdicts(rows, 0.2)
    counts = {"biased": 1, "short": 2, "unbiased": 2, "narrow": 2, "tested": 3}
    assert verdict == {"system": "p", **counts}


def test_the_levels_hold_together():
    arms = tuple(f"artbp(4, {law})" for law in ("law='geometric'", "alpha=4", "alpha=6"))
    fields = (f"noisy_arms={arms}", f"tested_arms={arms}", "family_level=0.9")
    config = load("systems=('short memory', 'long memory')", *fields)
    assert len(measure.truncation_lengths(config)) == 4
    np.testing.assert_allclose(measure.each_confidence(config), 1 - 0.1 / (2 * (2 * 4 + 3 + 4 + 1)))
    assert STUDY.default_config().systems == NAMES
