"""`docs/recipes.md`: each recipe runs as written, and does what the page says of it."""

import hashlib
import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pages
import pytest

import artbp

PAGE = Path(__file__).parent.parent / "docs" / "recipes.md"
SHARED, *SECTIONS = (pages.blocks(section) for section in PAGE.read_text().split("\n## "))
TITLES = re.findall(r"^## (.*)$", PAGE.read_text(), re.MULTILINE)
RECIPES = dict(zip(TITLES, SECTIONS, strict=True))
MEMORY_MAP = "Data from a memory map"  # its `Pieces` are also those of the loaders


@pytest.fixture(scope="module")
def shared():
    """What the shared block defines. One `update` for all recipes, so that it compiles once."""
    return run(SHARED, {})


@pytest.fixture(autouse=True)
def as_users_run(tmp_path, monkeypatch, strict_promotion):
    """In a folder of its own, and with JAX's own promotion."""
    monkeypatch.chdir(tmp_path)
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


def run(code, names):
    names = dict(names)
    print(pages.run(code, PAGE, names), end="")
    return names


def first_update(names, estimator, params, carry, stream):
    """(gradient, info) of the first estimate, by the compiled `update` of the page."""
    opt_state = names["optimizer"].init(params)
    state = estimator.init(params, carry, rng_key=jax.random.key(2))
    *_, opt_state, info = names["update"](estimator, params, state, opt_state, stream)
    return jax.tree.map(lambda mean: mean / 0.1, opt_state[0].mu), info  # Adam's mean of one


def with_readout(names):
    """Params with which every gradient is nonzero."""
    return names["params"] | {"readout": 0.2 * jax.random.normal(jax.random.key(9), (32, 10))}


def gradient_of_rows(names, params, xs, lengths, counts):
    """(the gradient of rows of their own lengths, by `artbp.unroll`); `counts` as a mask."""

    @jax.jit
    def gradient(params, xs, targets, lengths, counts):
        def loss(params):
            carry = jnp.zeros((xs.shape[1], 32))
            _, ys = artbp.unroll(names["cell"], params, carry, xs, lengths=lengths)
            losses = names["loss_fn"](params, ys, targets)
            return jnp.sum(jnp.where(counts, losses, 0))

        return jax.grad(loss)(params)

    xs, targets = xs
    return gradient(params, xs, targets, lengths, counts)


def close(found, expected):
    largest = max(float(jnp.max(jnp.abs(leaf))) for leaf in jax.tree.leaves(expected))
    assert largest > 0
    chex.assert_trees_all_close(found, expected, rtol=1e-4, atol=1e-5 * largest)


def check_evaluation(names, printed):
    """It learned, and in two pieces the sums are those of the whole."""
    assert printed["test loss"] < 0.1 and printed["accuracy"] > 0.99
    stream, carry, loss_sum = names["test_stream"], names["carry"], 0.0
    for half in (slice(0, 250), slice(250, 500)):
        piece = artbp.Stream(stream.xs[half], stream.targets[half], mask=stream.mask[half])
        result = names["evaluate"](names["trained"], carry, piece)
        carry, loss_sum = result.carry, loss_sum + result.loss_sum
    close((loss_sum, carry), (names["result"].loss_sum, names["result"].carry))


def check_dropout(names, printed):
    """The masks of a step are new in the next pass, and the same when the step is run again."""
    assert printed["without dropout"] < 0.1

    def loss(state):
        arguments = (names["trained"], state, names["opt_state"], names["stream"], names["key"])
        return float(names["noisy_update"](*arguments)[-1].loss_sum)

    state = names["noisy"].init(names["trained"], names["carry"], rng_key=jax.random.key(0))
    in_the_next_pass = state._replace(num_steps=state.num_steps + 500)
    assert loss(state) == loss(state) != loss(in_the_next_pass)


def check_padded(names, printed):
    """Other padding gives the same training, and the losses of the padding are not counted."""
    xs, targets = (jnp.where(names["is_padding"], 7, names[name]) for name in ("xs", "targets"))
    other = artbp.Stream(xs, targets, mask=names["mask"], lengths=names["lengths"])
    trained = [
        names["train"](names["estimator"], names["params"], s) for s in (names["padded"], other)
    ]
    chex.assert_trees_all_equal(*trained)
    np.testing.assert_array_equal(other.mask.sum(axis=0), names["lengths"] - 1)


def check_packed(names, printed):
    """The gradient is the sum of those of the sequences alone."""
    params, sequences = with_readout(names), names["sequences"]
    lengths = np.array([len(sequence) for sequence in sequences])
    xs = np.zeros((lengths.max(), len(sequences)), int)
    for b, sequence in enumerate(sequences):
        xs[: len(sequence), b] = sequence
    steps = np.arange(lengths.max())[:, None]
    counts = (steps >= 1) & (steps < lengths)
    bptt = artbp.bptt(names["cell"], names["loss_fn"])
    found, _ = first_update(names, bptt, params, names["carry"], names["short"])
    rows = xs, np.roll(xs, 1, axis=0)
    close(found, gradient_of_rows(names, params, rows, lengths, counts))
    total = lengths.sum()
    assert names["lengths"].sum() == total and names["lengths"].max() < 1.05 * total / 8


def check_one_loss(names, printed):
    """100 losses, and their mean has the gradient of the last outputs of the rows."""
    params, batch = with_readout(names), names["batch"]
    assert int(np.sum(batch.mask)) == 100
    found, _ = first_update(names, names["bptt"], params, jnp.zeros((100, 32)), batch)
    rows = names["xs"], jnp.broadcast_to(names["xs"][0], names["xs"].shape)
    expected = gradient_of_rows(names, params, rows, names["lengths"], names["is_last"])
    close(found, jax.tree.map(lambda leaf: leaf / 100, expected))


def check_learned(names, printed):
    """BPTT with the cell of the page is the gradient through `make_carry` and an unroll."""
    params = with_readout(names) | {"first": names["first_params"]["first"]}
    bptt = artbp.bptt(names["first_cell"], names["loss_fn"], normalizer=80)
    found, _ = first_update(names, bptt, params, names["first_carry"], names["stream"])

    def loss(params):
        _, ys = artbp.unroll(names["cell"], params, names["make_carry"](params), names["inputs"])
        losses = jax.vmap(names["loss_fn"], (None, 0, 0))(params, ys, names["targets"])
        return losses[1:].sum() / 80

    close(found, jax.jit(jax.grad(loss))(params))
    assert jnp.any(names["first_trained"]["first"] != names["first_params"]["first"])


def check_tied(names, printed):
    """The embedding gets the gradient of both of its uses, here in the first segment."""
    cell, loss_fn, params = names["tied_cell"], names["tied_loss_fn"], names["tied_params"]
    estimator, stream = names["tied"], names["stream"]
    found, info = first_update(names, estimator, params, names["carry"], stream)

    assert info.length > 3

    def loss(params):
        length = int(info.length)
        gates = names["law"].compensation(jnp.arange(1, length + 1))
        _, ys = artbp.unroll(cell, params, names["carry"], stream.xs[:length], gates=gates)
        return jnp.sum(loss_fn(params, ys, stream.targets[:length])[1:]) / 80

    close(found, jax.grad(loss)(params))


def check_learning_rates(names, printed):
    """The rate follows the time steps, of which all updates together ran 2,000 and a few."""
    assert printed["last rate"] == 0
    assert 2000 <= names["state"].num_steps < 2200
    assert 150 < printed["updates"] < 250


def check_accumulation(names, printed):
    """The params change at the fourth estimate, and the average follows them."""
    params, average = names["params"], names["params"]
    state = names["estimator"].init(params, names["carry"], rng_key=jax.random.key(0))
    opt_state, changes = names["accumulating"].init(params), []
    for _ in range(4):
        before = params
        params, average, state, opt_state = names["accumulate"](
            params, average, state, opt_state, names["stream"]
        )
        changes.append(bool(jnp.any(params["readout"] != before["readout"])))
    assert changes == [False, False, False, True]
    close(average, jax.tree.map(lambda x, y: 0.02 * x + 0.98 * y, params, before))


def check_bfloat16(names, printed):
    """The errors are those of the table, and a small update is lost."""
    assert 0.0015 < printed["by_unroll bfloat16"] < 0.0023
    assert 0.0006 < printed["by_unroll mixed"] < 0.001
    assert 0.0015 < printed["by_estimator bfloat16"] < 0.0023
    assert 0.0013 < printed["by_estimator mixed"] < 0.0021
    lost = jnp.bfloat16(1) + jnp.bfloat16(1 / 512)
    assert lost.dtype == jnp.bfloat16 and lost == 1


DIGEST = """
leaves = jax.tree.leaves((params, opt_state, state.carry, state.position, state.num_estimates))
print("digest", hashlib.sha256(b"".join(np.asarray(leaf).tobytes() for leaf in leaves)).hexdigest())
"""


def check_checkpoints(names, printed):
    """A second start, in a fresh process, ends at the same bits as 100 more updates here."""
    code = "\n".join(["import hashlib", SHARED, RECIPES["Checkpoints"], DIGEST])
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    going_on = (
        "for _ in range(100):\n"
        "    params, state, opt_state, info = "
        "update(estimator, params, state, opt_state, stream)\n"
    )
    assert names["number"] == 100
    names = run(going_on + DIGEST, names | {"hashlib": hashlib, "print": printed.__setitem__})
    assert printed["digest"] in process.stdout


def check_memory_map(names, printed):
    """The pieces hold the steps of each row, in order, and the step before each of them."""
    rows = names["symbols"].reshape(8, -1)
    xs, targets = (
        np.concatenate(arrays) for arrays in zip(*names["Pieces"]("symbols"), strict=True)
    )
    np.testing.assert_array_equal(xs, rows[:, 1:].T)
    np.testing.assert_array_equal(targets, rows[:, :-1].T)


def check_loader(names, printed):
    """The losses are those of the pieces themselves."""
    losses = printed["every loss"]
    assert len(losses) == 2 and losses[0] == losses[1]


CHECKS = {
    "Evaluation": check_evaluation,
    "Dropout": check_dropout,
    "Padded batches": check_padded,
    "Packed short sequences": check_packed,
    "One loss for each sequence": check_one_loss,
    "A learned first carry": check_learned,
    "Tied embeddings": check_tied,
    "Learning rates in time steps": check_learning_rates,
    "Gradient accumulation and EMA of the params": check_accumulation,
    "bfloat16": check_bfloat16,
    "Checkpoints": check_checkpoints,
    MEMORY_MAP: check_memory_map,
    "Data from a torch DataLoader": check_loader,
    "Data from grain": check_loader,
}
NEEDS = {"Data from a torch DataLoader": "torch", "Data from grain": "grain"}


def test_every_recipe_is_short_and_checked():
    assert list(CHECKS) == TITLES
    lengths = {title: len(re.findall(r"\S.*\n", code)) for title, code in RECIPES.items()}
    assert {title for title, lines in lengths.items() if lines > 30} == set()


@pytest.mark.parametrize("title", CHECKS)
def test_a_recipe(title, shared, capsys):
    package = NEEDS.get(title)
    if package is not None and importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed")
    code = RECIPES[title] if package is None else RECIPES[MEMORY_MAP] + "\n" + RECIPES[title]
    names = run(code, shared)
    found = re.findall(r"(\w[\w ]*?) ([\d.]\S*)(?= |$)", capsys.readouterr().out, re.MULTILINE)
    printed = {name: float(value) for name, value in found}
    printed["every loss"] = [float(value) for name, value in found if name == "loss"]
    assert all(loss < 0.1 for loss in printed["every loss"])
    CHECKS[title](names, printed)
