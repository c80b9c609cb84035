"""Which arrays of one step fit together: rows, arrays that rows share, rows on the last axis."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from problems import bptt_gradient, make_problem, one_pass, relative_error

import artbp
from artbp.diagnostics.gate_gradients import gradients_of_gates

NUM_STEPS, NUM_ROWS, NUM_UNITS = 4, 3, 4
PROBLEM = make_problem("rnn", NUM_STEPS, NUM_ROWS)
ONE_ROW = np.ones((NUM_STEPS, 1), np.float32)
SYMBOLS = np.zeros((NUM_STEPS, NUM_ROWS), np.uint32)


def with_carry_as_y(change):
    """The cell with a y made from its carry, so that the loss has H features of each row."""

    def cell(params, carry, x):
        carry = PROBLEM.cell(params, carry, x)[0]
        return carry, change(carry)

    return cell


def features_first(params, carry, x):
    """The cell on transposed arrays."""
    carry, y = PROBLEM.cell(params, carry.T, x.T)
    return carry.T, y.T


def scaled(params, carry, x):
    return PROBLEM.cell(params, carry, x["x"] * x["scale"][:, None])


def of_symbols(params, carry, x):
    table = params["cell"]["input"]
    return PROBLEM.cell(params, carry, table.T[x["symbols"]][:, :3] * x["scale"][:, None])


def squares(params, y, target):
    """Of `[H, B]`."""
    return params["readout"] @ (y - target) ** 2


def check(cell=PROBLEM.cell, loss_fn=PROBLEM.loss_fn, carry=PROBLEM.carry, **stream):
    """Traces an evaluation, which has the checks of the estimators."""
    fields = {"xs": PROBLEM.stream.xs, "targets": PROBLEM.stream.targets, **stream}
    arguments = cell, loss_fn, PROBLEM.params, carry, artbp.Stream(**fields)
    return jax.eval_shape(lambda: artbp.evaluate(*arguments))


def with_scale(params, y, target):
    return PROBLEM.loss_fn(params, y, target["of_row"]) * target["scale"]


XS_T, CARRY_T = PROBLEM.stream.xs.swapaxes(1, 2), PROBLEM.carry.T
SHARED = {"of_row": PROBLEM.stream.targets, "scale": ONE_ROW}
FIT = {
    "an input of one row beside one of all rows": {
        "cell": scaled,
        "xs": {"x": PROBLEM.stream.xs, "scale": ONE_ROW},
    },
    "an input of one row beside uint32 symbols": {
        "cell": of_symbols,
        "xs": {"symbols": SYMBOLS, "scale": ONE_ROW},
    },
    "a target of one row beside one of all rows": {"loss_fn": with_scale, "targets": SHARED},
    "y [H, B]": {
        "cell": with_carry_as_y(jnp.transpose),
        "loss_fn": lambda p, y, t: squares(p, y, t[None]),
    },
    "all arrays [..., B]": {
        "cell": features_first,
        "loss_fn": squares,
        "carry": CARRY_T,
        "xs": XS_T,
        "targets": np.ones((NUM_STEPS, 1, NUM_ROWS), np.float32),
    },
}
REFUSED = {
    "inputs of one row": ({"xs": PROBLEM.stream.xs[:, :1]}, "xs has the shapes"),
    "targets of one row": ({"loss_fn": with_scale, "targets": {**SHARED, "of_row": ONE_ROW}}, ""),
    "more targets than the one row": (
        {
            "carry": PROBLEM.carry[:1],
            "xs": PROBLEM.stream.xs[:, :1],
            "targets": PROBLEM.stream.targets[:, :2],
        },
        r"2 losses a step, but y has \[1\] rows.*as many rows as y",
    ),
    "a mean over the rows": (
        {"cell": with_carry_as_y(lambda carry: carry), "loss_fn": lambda p, y, t: jnp.mean(y, 0)},
        r"4 losses a step, but y has \[3\] rows",
    ),
    "a mean over the rows, of a cell for any number of units": (
        {
            "cell": lambda p, s, x: (s + p["readout"][0] * x[:, :1],) * 2,
            "loss_fn": lambda p, y, t: jnp.mean(y, 0),
        },
        r"4 losses a step, but y has \[3\] rows",
    ),
    "a mean over the rows, with as many inputs as units": (
        {
            "cell": lambda p, s, x: with_carry_as_y(lambda s: s)(p, s, x[:, :3]),
            "loss_fn": lambda p, y, t: jnp.mean((y - t) ** 2, 0),
            "xs": np.ones((NUM_STEPS, NUM_ROWS, NUM_UNITS), np.float32),
            "targets": np.ones((NUM_STEPS, NUM_ROWS, NUM_UNITS), np.float32),
        },
        r"4 losses a step, but y has \[3\] rows",
    ),
}


@pytest.mark.parametrize("given", FIT.values(), ids=FIT)
def test_arrays_that_fit(given):
    check(**given)


@pytest.mark.parametrize(("given", "message"), REFUSED.values(), ids=REFUSED)
def test_arrays_that_do_not(given, message):
    with pytest.raises(ValueError, match=message or "targets has the shapes"):
        check(**given)


def test_the_diagnostics_of_gates_check_the_rows():
    data = PROBLEM.params, PROBLEM.carry, PROBLEM.stream
    with pytest.raises(ValueError, match=r"1 losses a step, but y has \[3\] rows"):
        loss_fn = lambda p, y, t: PROBLEM.loss_fn(p, y, t)[:1]  # noqa: E731
        gradients_of_gates(PROBLEM.cell, loss_fn, *data, jnp.ones((1, NUM_STEPS)))


def test_rows_on_the_last_axis_have_the_same_gradient(float64):
    """All arrays transposed, with a mask by row."""
    problem = make_problem("rnn", 2, NUM_ROWS, mask=True)
    targets = np.ones((2, NUM_ROWS, NUM_UNITS))
    stream = artbp.Stream(problem.stream.xs, targets, mask=problem.stream.mask)
    loss_fn = lambda p, y, t: squares(p, y.T, t.T)  # noqa: E731
    expected = problem._replace(loss_fn=loss_fn, stream=stream)
    stream = artbp.Stream(stream.xs.swapaxes(1, 2), targets.swapaxes(1, 2), mask=stream.mask)
    found = problem._replace(cell=features_first, loss_fn=squares, stream=stream)
    found = found._replace(carry=problem.carry.T)
    gradient = one_pass(artbp.bptt(features_first, squares), found)[0]
    assert relative_error(gradient, jax.jit(lambda: bptt_gradient(expected))()) < 1e-12


def test_the_checks_share_a_trace():
    """Beside that of the kernel, the cell and the loss are traced once."""
    traced = []

    def cell(params, carry, x):
        traced.append("cell")
        return PROBLEM.cell(params, carry, x)

    def loss_fn(params, y, target):
        traced.append("loss")
        return PROBLEM.loss_fn(params, y, target)

    estimator = artbp.bptt(cell, loss_fn)
    state = estimator.init(PROBLEM.params, PROBLEM.carry, rng_key=jax.random.key(0))
    jax.eval_shape(estimator.estimate, PROBLEM.params, state, PROBLEM.stream)
    assert sorted(traced) == ["cell", "loss"]
