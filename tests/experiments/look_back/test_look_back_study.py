"""The experiment at a tiny size; the split of a gradient; variances by enumeration."""

import itertools
import json
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import workdirs

import artbp
from artbp import truncation
from experiments.common.cli import CommandLine
from experiments.common.config import load_config
from experiments.common.errors import ConfigError
from experiments.look_back import variances
from experiments.look_back.__main__ import STUDY
from experiments.look_back.config import read_text, rows_beyond
from experiments.look_back.gradients import remainders_by_row, through_windows
from experiments.look_back.staleness import ERRORS, Live, Training, summary
from experiments.ptb.model import character_model

CONFIG = Path(__file__).parents[3] / "configs" / "look_back" / "default.py"
TINY = (
    "hidden_size=4",
    "batch=4",
    "truncation_length=3",
    "learning_rates=(1e-2, 1e-30)",
    "points=(36,)",
    "num_windows=3",
    "every=2",
    "older_windows=4",
    "history=30",
    "extra_works=(0.5, 1.0)",
)


@pytest.fixture(autouse=True)
def without_penn_treebank(monkeypatch):
    monkeypatch.delenv("ARTBP_DATA_DIR", raising=False)


def load(*overrides):
    return load_config(STUDY.default_config(), CONFIG, (*TINY, *overrides))


def test_writes_its_files(tmp_path):
    workdir = tmp_path / "run"
    STUDY.main(load(), CommandLine(workdir, False, False, None))
    files = workdirs.FILES | {"look_back.png", "look_back.svg"}
    assert {path.name for path in workdir.iterdir()} == files
    rows = json.loads((workdir / "results.json").read_text(encoding="utf-8"))
    found = [(row["part"], row["updates"], row.get("extra_work")) for row in rows]
    of_model = [("rows", None)] + [("laws", 0.5)] * 3 + [("laws", 1.0)] * 3
    expected = [("staleness", 36, None)] * 2
    assert found == expected + [(part, n, work) for n in (0, 40) for part, work in of_model]
    learning, frozen = rows[:2]
    # With frozen params nothing is stale, in either mode. With others everything is.
    for name in ("carry", "stored", "reforward"):
        assert frozen[name]["one_window"] < 1e-4 < 1e-3 < learning[name]["one_window"]
    assert learning["stored"]["one_window"] != learning["reforward"]["one_window"]
    assert frozen["truncation"]["one_window"] > 0.05
    for row in rows:
        if row["part"] == "laws":
            assert (row["ratio"][0] == 1) == (row["law"] == "optimal")
    table = (workdir / "table.md").read_text(encoding="utf-8")
    assert "older windows, stored" in table
    assert "polynomial, α = 4" in table


def test_the_errors_are_those_of_the_estimator():
    """truncation + carry is TBPTT's error, and carry + stored that of unbiased TBPTT."""
    config = load()
    training = Training(config, read_text(config))
    params = training.first_params
    carry = training.model.initial_carry(params, 4)
    state = training.estimator().init(params, carry, rng_key=training.rng_key)
    live = Live(params, optax.adam(0.0).init(params), state)
    live = training.advance(live, training.stream, 1e-2, np.int32(40))
    found = training.measure(live.params, live.state, training.stream)
    for mode, law in (("truncation", truncation.fixed(1)), ("stored", truncation.fixed(5))):
        estimator = training.estimator(law)
        grads, _, _ = estimator.estimate(live.params, live.state, training.stream)
        grads = jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(grads)])
        expected = found["gradient"] + found["carry"] + found[mode]
        np.testing.assert_allclose(grads, expected, rtol=1e-4, atol=1e-6)


def some_windows(num_windows):
    model = character_model("lstm", 5, 3)
    xs, targets = jax.random.randint(jax.random.key(1), (2, num_windows, 4, 6), 0, 5)
    return model, model.init(jax.random.key(0)), xs, targets[-1]


def test_the_parts_are_those_of_truncated_gradients():
    model, params, xs, targets = some_windows(4)
    parts = jax.jit(partial(through_windows, model, older=2))(params, xs, targets)

    @jax.jit
    @jax.grad
    def gradient(params, windows):
        """Cut before the last so many windows."""
        gates = jnp.ones(16).at[15 - 4 * windows].set(0.0)
        carry = model.initial_carry(params, 6)
        _, ys = artbp.unroll(model.cell, params, carry, xs.reshape(16, 6), gates=gates)
        return jnp.sum(jax.vmap(partial(model.loss_fn, params))(ys[-4:], targets))

    for windows in (1, 2, 3):
        grads = gradient(params, windows)
        expected = jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(grads)])
        np.testing.assert_allclose(parts[:windows].sum(0), expected, rtol=1e-4, atol=1e-6)


def test_remainders_of_the_batch_are_sums_over_rows():
    model, params, xs, targets = some_windows(3)
    of_batch = jax.jit(partial(remainders_by_row, model, older=2))
    whole, shared, within = of_batch(params, xs, targets)
    of_row = jax.jit(partial(through_windows, model, older=2))
    rows = np.array([of_row(params, xs[..., [b]], targets[:, [b]]) for b in range(6)])
    remainders = np.stack([rows[:, j:].sum(1) for j in range(3)])  # [j, rows, P]
    np.testing.assert_allclose(whole, remainders[0].sum(0), rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(shared, (remainders.sum(1) ** 2).sum(-1), rtol=1e-4)
    np.testing.assert_allclose(within, (remainders**2).sum((1, 2)), rtol=1e-4)


def test_the_variance_of_a_subset_of_the_rows_is_that_of_all_subsets():
    """4 rows; 2 go beyond the first edge, 1 beyond the second, 1 or 0 beyond the third."""
    rng = np.random.default_rng(0)
    parts = 1 + rng.normal(size=(4, 4, 3))  # G_j^b, [j, b, P]
    law = truncation.geometric(2)
    mean, second, total = 0.0, 0.0, 0
    for two in itertools.combinations(range(4), 2):
        for one in two:
            for go_on in (False, True):
                estimate = parts[0].sum(0) + 2 * parts[1, list(two)].sum(0) + 4 * parts[2, one]
                estimate = estimate + 8 * go_on * parts[3, one]
                mean, second, total = mean + estimate, second + estimate @ estimate, total + 1
    mean = mean / total
    np.testing.assert_allclose(mean, parts.sum((0, 1)), rtol=1e-12)
    remainders = np.cumsum(parts[::-1], axis=0)[::-1][1:]
    shared, within = (remainders.sum(1) ** 2).sum(-1), (remainders**2).sum((1, 2))
    found = variances.subset_variance(law, shared, within, batch=4)
    np.testing.assert_allclose(found, second / total - mean @ mean, rtol=1e-12)
    assert found < truncation.look_back_variance(law, shared)  # the rows have a mean in common


@pytest.mark.parametrize(("hazard", "batch"), [(0.4, 5), (0.75, 8), (0.75, 2)])
def test_numbers_of_rows_that_are_no_integers_are_refused(hazard, batch):
    with pytest.raises(ConfigError, match="integers down to 1"):
        rows_beyond(truncation.geometric(1 / hazard), batch, 3)


def test_the_chain_of_windows():
    shared, subset = variances.chains(truncation.geometric(4 / 3), 64)
    np.testing.assert_allclose(shared, 4 / 3)
    # 16, 4 and 1 rows; then one with probability 1/4, 1/16, ...
    np.testing.assert_allclose(subset, 1 + 3 + 1 / 3)


def test_laws_have_the_work_that_was_wanted():
    profile = 0.1 ** np.arange(1, 9)
    for name in variances.LAWS:
        law = variances.make_law(name, 0.5, profile)
        np.testing.assert_allclose(truncation.look_back_work(law), 0.5, rtol=1e-6)


def test_the_noise_of_the_windows_is_not_taken_for_a_mean():
    rng = np.random.default_rng(0)
    found = {name: rng.normal(size=(40, 500)) for name in ERRORS}
    found["gradient"] = 2 + rng.normal(size=(40, 500))
    found["carry"] += 1
    row = summary(found | {"bits": np.ones(40)})
    # Each entry of g has the mean 2 and the variance 1, so E g² = 5.
    assert row["data_noise"] == pytest.approx(5**-0.5, rel=0.05)
    assert row["carry"]["mean"] == pytest.approx(5**-0.5, rel=0.05)
    assert row["carry"]["one_window"] == pytest.approx((2 / 5) ** 0.5, rel=0.05)
    assert row["stored"]["one_window"] == pytest.approx((1 / 5) ** 0.5, rel=0.05)
    assert row["stored"]["mean"] < 0.05
    assert row["stored"]["interval"][0] == 0
