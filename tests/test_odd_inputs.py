"""Odd inputs to public functions: a right value, or an error with the argument's name and a remedy.

Nearly all are refused before anything is compiled. The same table is a page of the documentation:

    ./run python tests/test_odd_inputs.py        # writes docs/odd_inputs.md again
"""

import functools
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import artbp
from artbp import contrib, diagnostics, truncation

PAGE = Path(__file__).parent.parent / "docs" / "odd_inputs.md"
T, B, D, H = 6, 2, 3, 4
XS, TARGETS = np.full((T, B, D), 0.5, np.float32), np.ones((T, B), np.float32)
PARAMS = {"w": np.full((D, H), 0.25, np.float32), "u": np.full((H, H), 0.125, np.float32)}
CARRY = np.zeros((B, H), np.float32)
LAW = truncation.polynomial(4, 4)
NAN = float("nan")


def cell(params, carry, x):
    carry = jnp.tanh(x @ params["w"] + carry @ params["u"])
    return carry, carry


def loss_fn(params, y, target):
    del params
    return (jnp.sum(y, -1) - target) ** 2


class Odd(NamedTuple):
    """One odd input: what is called, what is given, and what comes of it.

    Attributes:
      function, argument, given: texts for the page.
      call: makes the call.
      error: the class of the error; None for a value.
      outcome: words of the message, as a pattern; or a predicate of the value with its text.
    """

    function: str
    argument: str
    given: str
    call: Callable[[], Any]
    error: type[Exception] | None
    outcome: Any


def key():
    return jax.random.key(0)


def of_functions(make, **fixed):
    """An estimator of the cell and the loss, as a function of its options."""
    return lambda **options: make(cell, loss_fn, **{**fixed, **options})


def of_law(make, **fixed):
    return lambda **options: make(cell, loss_fn, **{"law": LAW, **fixed, **options})


@functools.cache
def estimator():
    return artbp.tbptt(cell, loss_fn, truncation_length=2, block_size=2)


@functools.cache
def state():
    return estimator().init(PARAMS, CARRY, rng_key=key())


def init(**given):
    given = {"params": PARAMS, "carry": CARRY, "rng_key": key(), **given}
    return estimator().init(**given)


def estimate(**given):
    given = {"params": PARAMS, "state": state(), "stream": artbp.Stream(XS, TARGETS), **given}
    return estimator().estimate(**given)


def evaluate(**given):
    data = {"params": PARAMS, "carry": CARRY, "stream": artbp.Stream(XS, TARGETS)}
    return artbp.evaluate(**{"cell": cell, "loss_fn": loss_fn, **data, **given})


def evaluate_stream(**fields):
    return evaluate(stream=artbp.Stream(**{"xs": XS, "targets": TARGETS, **fields}))


def stream(**fields):
    return artbp.Stream(**{"xs": XS, "targets": TARGETS, **fields})


def unroll(run=artbp.unroll, **given):
    return run(**{"cell": cell, "params": PARAMS, "carry": CARRY, "xs": XS, **given})


def scan(**given):
    step = lambda carry, x: (jnp.tanh(carry + x[:, :1]), carry)  # noqa: E731
    return artbp.scan(**{"f": step, "init": CARRY, "xs": XS, **given})


def chunks(**given):
    given = {"chunks": [(XS, TARGETS)], "estimator": estimator(), "state": state(), **given}
    return list(artbp.stream_chunks(**{"num_steps": 2, **given}))


def measured(function, **fixed):
    """A diagnostic of the stream, as a function of its options."""

    def call(**options):
        data = {"params": PARAMS, "carry": CARRY, "stream": artbp.Stream(XS, TARGETS)}
        given = {"cell": cell, "loss_fn": loss_fn, **data, **fixed, **options}
        return function(**given)

    return call


def report(**options):
    fixed = {"window_length": 2, "truncation_lengths": (1,), "laws": (), "rng_key": key()}
    long = artbp.Stream(np.tile(XS, (3, 1, 1)), np.tile(TARGETS, (3, 1)))
    return measured(diagnostics.gradient_report, stream=long, **fixed)(**options)


def lag_profile(**options):
    return measured(diagnostics.lag_profile, num_lags=3, rng_key=key())(**options)


def look_back_profile(**options):
    fixed = {"truncation_length": 2, "num_windows": 1}
    return measured(diagnostics.look_back_profile, **fixed)(**options)


def optimal_law(**options):
    return contrib.optimal_law(
        **{"gram": [[1.0]], "mean_length": 4, "second_moment": 30, **options}
    )


def clipping_report(**options):
    data = {"params": PARAMS, "carry": CARRY, "stream": artbp.Stream(XS, TARGETS)}
    fixed = {"estimator": estimator(), "rng_keys": jax.random.split(key())}
    return contrib.clipping_report(**{**data, **fixed, **options})


def row(function, argument, value, make, error, outcome, given=None):
    """A row of the table; `make` takes the argument by its name."""
    call = lambda: make(**{argument: value() if callable(given) else value})  # noqa: E731
    return Odd(function, argument, repr(value) if given is None else given, call, error, outcome)


NOT_INTEGERS = {
    None: "in place of None",
    "8": "in place of a text",
    2.5: "Round it",
    True: "A bool",
}
TAKES_AN_INTEGER = {
    ("tbptt", "truncation_length"): of_functions(artbp.tbptt),
    ("tbptt_k1_k2", "k1"): of_functions(artbp.tbptt_k1_k2, k2=4),
    ("tbptt_k1_k2", "k2"): of_functions(artbp.tbptt_k1_k2, k1=4),
    ("artbp", "block_size"): of_law(artbp.artbp),
    ("unbiased_tbptt", "truncation_length"): of_law(artbp.unbiased_tbptt),
    ("adaptive_tbptt", "longest"): of_functions(artbp.adaptive_tbptt),
    ("awd_lstm_bptt", "base_length"): of_functions(artbp.awd_lstm_bptt),
    ("rtrl", "update_every"): of_functions(artbp.rtrl),
    ("pes", "num_pairs"): of_functions(artbp.pes, truncation_length=2),
    ("evaluate", "chunk_size"): evaluate,
    ("stream_chunks", "num_steps"): chunks,
    ("truncation.fixed", "length"): truncation.fixed,
    ("diagnostics.gradient_report", "window_length"): report,
    ("diagnostics.lag_profile", "num_lags"): lag_profile,
    ("diagnostics.look_back_profile", "num_windows"): look_back_profile,
    ("diagnostics.shadow", "window_length"): of_functions(diagnostics.shadow),
}
NOT_NUMBERS = {
    None: "in place of None",
    "4": "in place of a text",
    NAN: "",
    -1.0: "",
    True: "A bool",
}
TAKES_A_NUMBER = {
    ("artbp", "normalizer"): of_law(artbp.artbp),
    ("adaptive_tbptt", "tolerance"): of_functions(artbp.adaptive_tbptt),
    ("awd_lstm_bptt", "deviation"): of_functions(artbp.awd_lstm_bptt),
    ("awd_lstm_bptt", "half_probability"): of_functions(artbp.awd_lstm_bptt),
    ("truncated_es", "scale"): of_functions(artbp.truncated_es, truncation_length=2),
    ("uoro", "epsilon"): of_functions(artbp.uoro),
    ("truncation.polynomial", "mean_length"): lambda **o: truncation.polynomial(alpha=4, **o),
    ("truncation.polynomial", "alpha"): lambda **o: truncation.polynomial(mean_length=4, **o),
    ("truncation.geometric", "mean_length"): truncation.geometric,
    ("truncation.optimal_look_back", "extra_work"): lambda **o: truncation.optimal_look_back(
        [2.0, 1.0], **o
    ),
    ("contrib.optimal_law", "second_moment"): optimal_law,
}
HAS_LAW = {
    "artbp": of_law(artbp.artbp),
    "unbiased_tbptt": of_law(artbp.unbiased_tbptt, truncation_length=2),
    "truncation.replay": lambda law: truncation.replay([2], law),
    "truncation.look_back_work": truncation.look_back_work,
    "truncation.look_back_variance": lambda law: truncation.look_back_variance(law, [1.0]),
    "truncation.streaming_variance": lambda law: truncation.streaming_variance(law, [[1.0]]),
}
TAKES_A_KEY = {
    "GradientEstimator.init": init,
    "with_keys": lambda rng_key: artbp.with_keys(stream(), rng_key, state()),
    "TruncationLaw.sample_length": LAW.sample_length,
    "TruncationLaw.sample_gates": lambda rng_key: LAW.sample_gates(rng_key, 4),
    "TruncationLaw.length_of": lambda rng_key: LAW.length_of(rng_key, 0),
    "diagnostics.gradient_report": report,
    "diagnostics.lag_profile": lag_profile,
}
FUNCTIONS = {
    "GradientEstimator.init": lambda **f: artbp.tbptt(
        **{"cell": cell, "loss_fn": loss_fn, "truncation_length": 2, **f}
    ).init(PARAMS, CARRY, rng_key=key()),
    "evaluate": evaluate,
    "diagnostics.gradient_report": report,
    "diagnostics.lag_profile": lag_profile,
}
with_nan = np.where(np.arange(3 * T)[:, None, None] == 7, NAN, np.tile(XS, (3, 1, 1)))
LONG_WITH_NAN = artbp.Stream(with_nan.astype(np.float32), np.tile(TARGETS, (3, 1)))
WITH_NAN = artbp.Stream(LONG_WITH_NAN.xs[6:12], TARGETS)
NAN_PARAMS = {**PARAMS, "u": np.full((H, H), NAN, np.float32)}


def by_kind():
    """Arguments of one kind, each with the same odd values."""
    for (function, argument), make in TAKES_AN_INTEGER.items():
        values = {**NOT_INTEGERS, 0: "", 2**31: "below"}
        for value, remedy in values.items():
            if argument == "num_lags" and value == 0:
                continue  # it needs three
            yield row(function, argument, value, make, ValueError, f"expected an integer.*{remedy}")
    for (function, argument), make in TAKES_A_NUMBER.items():
        for value, remedy in NOT_NUMBERS.items():
            words = rf"expected a (finite )?number.*{remedy}"
            yield row(function, argument, value, make, ValueError, words)
    for function, make in HAS_LAW.items():
        for value in (16, "geometric"):
            words = r"expected a truncation law, such as artbp\.truncation\.polynomial\(16, 4\)"
            yield row(function, "law", value, make, TypeError, words)
    for function, make in TAKES_A_KEY.items():
        words = r"expected a key. Pass jax.random.key\(0\)"
        yield row(function, "rng_key", 0, make, TypeError, words)
        yield row(function, "rng_key", None, make, TypeError, words)
        call = lambda make=make: make(rng_key=jax.random.split(key()))  # noqa: E731
        words = r"holds keys of shape \(2,\); expected one key"
        yield Odd(function, "rng_key", "jax.random.split(key)", call, ValueError, words)
    for function, make in FUNCTIONS.items():
        for argument in ("cell", "loss_fn"):
            words = "is None; expected a function. Define"
            yield row(function, argument, None, make, TypeError, words)


def of_laws():
    function = "truncation.tabulated"
    for value in (None, 0.5, "ab", [], [None], [[0.5]]):
        words = r"expected c\(1\), …, c\(n\), numbers from 0 to 1.*Pass"
        yield row(function, "hazards", value, truncation.tabulated, ValueError, words)
    for value in ([2.0], [NAN]):
        words = r"c\(1\) = .*expected a number in \[0, 1\)"
        yield row(function, "hazards", value, truncation.tabulated, ValueError, words)
    for value in (None, [], [2.5], [0], "ab", [2**40]):
        words = "expected (one or more integers|every length)"
        yield row("truncation.replay", "lengths", value, truncation.replay, ValueError, words)
    make = of_functions(artbp.random_truncation)
    for value in (None, "a", 0, 2, NAN, [], [[0.5]]):
        words = r"expected probabilities in \(0, 1\]"
        yield row("random_truncation", "keep_probability", value, make, ValueError, words)
    for value in (None, "a", 0, 2.5, NAN, 1 + 1j):
        words = r"expected (whole )?ages|Ages start at k = 1"
        yield row("TruncationLaw.hazard", "k", value, LAW.hazard, ValueError, words)
    for value in (None, "a", -1, 2.5, NAN, 10**30):
        words = r"expected (whole ages k ≥ 0|0 ≤ k < 2³¹)"
        yield row("TruncationLaw.survival", "k", value, LAW.survival, ValueError, words)
    sample = lambda limit: LAW.sample_length(key(), limit)  # noqa: E731
    for value in (0, -1, 2.5, NAN, "a", 2**40):
        words = "expected an integer ≥ 1"
        yield row("TruncationLaw.sample_length", "limit", value, sample, ValueError, words)
    gates = lambda n: LAW.sample_gates(key(), n)  # noqa: E731
    for value in (None, -1, 2.5):
        words = "expected an integer ≥ 0"
        yield row("TruncationLaw.sample_gates", "n", value, gates, ValueError, words)
    variance = lambda profile: truncation.look_back_variance(LAW, profile)  # noqa: E731
    for value in (None, "ab", [1 + 1j], [-1.0], [NAN], [[1.0]]):
        words = "expected ‖R_1‖², ‖R_2‖², …, finite and not negative"
        name = "truncation.look_back_variance"
        yield row(name, "profile", value, variance, ValueError, words)
    variance = lambda gram: truncation.streaming_variance(LAW, gram)  # noqa: E731
    for value in (None, "a", [[1j]], [[NAN]], [[1.0, 2.0]], [[1.0, 2.0], [0.0, 1.0]]):
        yield row("truncation.streaming_variance", "gram", value, variance, ValueError, "expected")


def of_options():
    for value in (None, "yes", 2):
        words = "expected True or False"
        make = of_law(artbp.artbp)
        yield row("artbp", "compensate", value, make, TypeError, words)
        make = of_functions(artbp.tbptt, truncation_length=2)
        yield row("tbptt", "draw_offset", value, make, TypeError, words)
        yield row("Stream", "ends", value, stream, TypeError, words)
    make = of_functions(artbp.tbptt, truncation_length=2)
    yield row("tbptt", "policy", "fast", make, ValueError, "expected one of 'dynamic'")
    yield row("tbptt", "segment_start", "zeros", make, ValueError, "expected 'carried'")
    for value in ([4.5], [0], ["1"], [True], [None], [2]):
        words = "expected integers from 1 to window_length − 1 = 1"
        yield row(
            "diagnostics.gradient_report", "truncation_lengths", value, report, ValueError, words
        )
    make = of_functions(diagnostics.shadow, window_length=4)
    for value in (None, "4", -1, 2.5):
        words = "expected an integer ≥ 0"
        yield row("diagnostics.shadow", "history_length", value, make, ValueError, words)
    for value in (0, -1, 2.5, "a"):
        words = "expected True, False, None, or an integer ≥ 1"
        error = ValueError if isinstance(value, int) else TypeError
        yield row("unroll", "checkpoint", value, unroll, error, words)
    for value in (0.0, -1.0, NAN):
        words = "expected a number above 0, or infinity"
        yield row("contrib.clipping_report", "max_norm", value, clipping_report, ValueError, words)


def of_streams():
    for value in ("abc", 3, [[1.0, 2.0]]):
        words = r"Stream.xs.*expected an array \[T, \.\.\.\].*numpy.asarray\(xs\)"
        yield row("Stream", "xs", value, evaluate_stream, TypeError, words)
    for value in (None, [], {}):
        words = "Stream got no xs. Pass num_steps=T"
        yield row("Stream", "xs", value, stream, ValueError, words)
    arrays = {
        "resets": {"zeros(6)": np.zeros(T), "full(6, nan)": np.full(T, NAN)},
        "mask": {"arange(6)": np.arange(T), "ones(6, complex)": np.ones(T, complex)},
    }
    for argument, values in arrays.items():
        for given, value in values.items():
            words = rf"Stream\.{argument} has dtype .*; expected bool.*flags != 0"
            yield row("Stream", argument, value, evaluate_stream, TypeError, words, given)
        words = rf"Stream.{argument}\[0\] is True; expected an array.*numpy.asarray\({argument}\)"
        yield row("Stream", argument, [True] * T, evaluate_stream, TypeError, words)
    for given, value in {"full(6, -1.0)": -1.0, "full(6, nan)": NAN}.items():
        words = "expected finite weights ≥ 0"
        yield row("Stream", "mask", np.full(T, value), stream, ValueError, words, given)
    words = r"targets has shape \(5, 2\); expected \[T, \.\.\.\], time first"
    yield row("Stream", "targets", TARGETS[1:], evaluate_stream, ValueError, words, "[5, 2] of 6")
    for value in ("8", 2.5, True, NAN, [4]):
        words = "num_steps must be an integer.*expected T"
        yield row("Stream", "num_steps", value, stream, ValueError, words)
    for value in (0, 2**40):
        words = "at least one time step and fewer than 2³¹"
        yield row("Stream", "num_steps", value, stream, ValueError, words)
    for value in (None, "a", -1, 2.5, True, 6):
        words = "expected (an integer ≥ 0|0 ≤ history < num_steps)"
        yield row("Stream", "history", value, stream, ValueError, words)
    for value in ("a", 0, 7, 2.5, True):
        words = "expected (an integer, )?history"
        yield row("Stream", "stop", value, evaluate_stream, ValueError, words)
    for value in ("a", 3, [2.0, 3.0], [NAN, 2], [[1, 2]], [True, False]):
        words = r"expected integers of shape \[B\]"
        yield row("Stream", "lengths", value, stream, ValueError, words)
    for value in ([-1, 2], [3, 7], [2**40, 1]):
        words = "expected numbers from 0 to T = num_steps = 6. Clip them"
        yield row("Stream", "lengths", value, stream, ValueError, words)
    for given, make in {
        "np.int64(6)": lambda: stream(num_steps=np.int64(6)).num_steps == 6,
        "jnp.int32(6)": lambda: stream(num_steps=jnp.int32(6)).num_steps == 6,
    }.items():
        yield Odd("Stream", "num_steps", given, make, None, (bool, "6 steps"))
    yield Odd(
        "Stream",
        "lengths",
        "[3, 4], a list",
        lambda: stream(lengths=[3, 4]).mask.sum(0).tolist(),
        None,
        (lambda value: value == [3, 4], "rows of 3 and 4 steps"),
    )
    for value in (3, None):
        words = "expected an artbp.Stream. Pass artbp.Stream"
        yield row("GradientEstimator.estimate", "stream", value, estimate, TypeError, words)
        yield row("evaluate", "stream", value, evaluate, TypeError, words)
    for value in (None, 3):
        words = "chunks is of type .*; expected an iterable of chunks"
        yield row("stream_chunks", "chunks", value, chunks, TypeError, words)
    words = "A chunk of the loader is int; expected a Stream or a pair"
    yield row("stream_chunks", "chunks", [3], chunks, ValueError, words)
    for value in (None, 3):
        words = "expected a GradientEstimator, such as artbp.tbptt"
        yield row("stream_chunks", "estimator", value, chunks, TypeError, words)
        run = lambda estimator: artbp.run_pass(estimator, PARAMS, state(), stream())  # noqa: E731
        yield row("run_pass", "estimator", value, run, TypeError, words)
        words = "expected the EstimatorState that estimator.init"
        yield row("GradientEstimator.estimate", "state", value, estimate, TypeError, words)
        yield row("stream_chunks", "state", value, chunks, TypeError, words)
        keys = lambda state: artbp.with_keys(stream(), key(), state)  # noqa: E731
        yield row("with_keys", "state", value, keys, TypeError, words)


def of_params_and_carries():
    for function, make in {
        "GradientEstimator.init": init,
        "GradientEstimator.estimate": estimate,
    }.items():
        for value in (None, {}):
            words = "holds no array; expected a pytree of float arrays.*Pass those"
            yield row(function, "params", value, make, TypeError, words)
        for value in (3, True):
            words = "has dtype (int32|bool): a gradient exists for float parameters only. Convert"
            yield row(function, "params", value, make, TypeError, words)
        yield row(function, "params", "a", make, TypeError, "is of type str; expected an array")
    texts = np.array(["a"])
    words = "is of type ndarray; expected an array of floats"
    yield row("GradientEstimator.init", "params", texts, init, TypeError, words, "array of texts")
    for function, make in {"GradientEstimator.init": init, "unroll": unroll}.items():
        words = "carry is 'a'; expected an array of numbers. Pass"
        yield row(function, "carry", "a", make, TypeError, words)
    words = "initial_carry is 'a'; expected an array of numbers"
    yield row("GradientEstimator.init", "initial_carry", "a", init, TypeError, words)
    words = r"initial_carry is \(\(2, 5\).*expected the carry's type"
    wide = np.zeros((B, 5), np.float32)
    yield row("GradientEstimator.init", "initial_carry", wide, init, ValueError, words, "[2, 5]")
    for function, make, stream_of in (
        ("diagnostics.gradient_report", report, LONG_WITH_NAN),
        ("diagnostics.lag_profile", lag_profile, WITH_NAN),
        ("diagnostics.look_back_profile", look_back_profile, WITH_NAN),
    ):
        words = r"params\['u'\] holds NaN or infinity.*Check|windows is NaN or infinite.*Check"
        given = "NaN in a leaf"
        yield row(function, "params", NAN_PARAMS, make, ValueError, words, given)
        words = "is NaN or infinity|is NaN or infinite.*Check"
        yield row(function, "stream", stream_of, make, ValueError, words, "a NaN in xs")


def of_rows():
    for given, xs in {
        "[6, 1, 3], carry of 2 rows": XS[:, :1],
        "[6, 3], carry of 2 rows": XS[:, 0],
    }.items():
        words = (
            r"xs has the shapes .*carry and losses have 2 rows; expected arrays \[T, B, \.\.\.\]"
        )
        yield row("evaluate", "xs", xs, evaluate_stream, ValueError, words, given)
    words = r"targets has the shapes \[\(1,\)\] .* repeat it"
    one = TARGETS[:, :1]
    yield row("evaluate", "targets", one, evaluate_stream, ValueError, words, "[6, 1] of 2 rows")
    of_losses = {
        "flags": (lambda p, y, t: loss_fn(p, y, t) > 0, TypeError, "dtype bool; expected real fl"),
        "integers": (
            lambda p, y, t: jnp.ones(B, jnp.int32),
            TypeError,
            "dtype int32; expected real floats",
        ),
        "complex": (
            lambda p, y, t: loss_fn(p, y, t).astype(jnp.complex64),
            TypeError,
            "dtype complex64; expected real floats",
        ),
        "one row of two": (
            lambda p, y, t: loss_fn(p, y, t)[:1],
            ValueError,
            r"1 losses a step, but y has \[2\] rows; expected one loss for each row",
        ),
        "each row twice": (
            lambda p, y, t: jnp.tile(loss_fn(p, y, t), 2),
            ValueError,
            r"4 losses a step, but y has \[2\] rows; expected one loss for each row",
        ),
        "y averaged over the rows": (
            lambda p, y, t: jnp.mean(y, 0),
            ValueError,
            r"4 losses a step, but y has \[2\] rows; expected one loss for each row",
        ),
        "None": (lambda p, y, t: None, ValueError, "loss_fn returned None .* expected one array"),
    }
    for given, (function, error, words) in of_losses.items():
        yield row("evaluate", "loss_fn", function, evaluate, error, words, f"returns {given}")
    carry = (CARRY, np.zeros(2, np.uint32))
    with_key = lambda p, s, x: ((cell(p, s[0], x)[0], s[1]), s[0])  # noqa: E731
    resets = np.zeros((T, B), bool)
    call = lambda: unroll(cell=with_key, carry=carry, resets=resets)  # noqa: E731
    words = r"carry\[1\] is uint32 of shape \(2,\).*expected a typed key. Use jax.random.key"
    yield Odd("unroll", "carry", "a raw key and 2 rows, resets [T, B]", call, ValueError, words)
    for value in ([-1, 3], [7, 3], [2**31, 3], [2**32 + 1, 3]):
        words = "expected numbers from 0 to T = num_steps = 6"
        yield row("unroll", "lengths", value, unroll, ValueError, words)
    for value in ([3.0, 4.0], [True, False], [NAN, 3], 3, "a"):
        yield row("unroll", "lengths", value, unroll, ValueError, r"expected integers, \[B\]")
    run = functools.partial(unroll, artbp.fused_unroll)
    for function, make in {"unroll": unroll, "fused_unroll": run, "scan": scan}.items():
        words = "gates is 'a'; expected floats"
        yield row(function, "gates", "a", make, TypeError, words)
        gates = np.ones(T, complex)
        words = "expected real floats.*gates.real"
        yield row(function, "gates", gates, make, TypeError, words, "ones(6, complex)")
        yield row(function, "gates", 3, make, ValueError, "gates is a scalar; expected an array")
    words = "resets has dtype .*; expected bool"
    nan = np.full(T, NAN)
    yield row("unroll", "resets", nan, unroll, TypeError, words, "full(6, nan)")
    for value in (None, "a", 1j):
        make = lambda factor: artbp.gate(CARRY, factor)  # noqa: E731
        yield row("gate", "factor", value, make, TypeError, "expected a real number")
    three = np.ones(3, np.float32)
    words = r"factor has shape \(3,\) .*expected a scalar, or \[B\]"
    yield row("gate", "factor", three, make, ValueError, words, "[3], carry of 2 rows")
    for value in (None, "a"):
        make = functools.partial(unroll, artbp.unroll)
        words = "cell is .*; expected a function. Define"
        yield row("unroll", "cell", value, make, TypeError, words)


TABLE = [*by_kind(), *of_laws(), *of_options(), *of_streams(), *of_params_and_carries(), *of_rows()]


def outcome_of(odd):
    """What the page says of one row; raises AssertionError if it is not what the row expects."""
    if odd.error is None:
        is_right, text = odd.outcome
        assert is_right(odd.call()), odd
        return f"{text}"
    with pytest.raises(odd.error) as caught:
        odd.call()
    message = str(caught.value)
    assert type(caught.value) is odd.error
    assert re.search(odd.outcome, message, re.DOTALL), (odd, message)
    assert re.search(rf"\b{odd.argument}\b", message) or odd.argument in IN_OTHER_WORDS, message
    return f"{odd.error.__name__}: {message}"


# Arguments whose values an error names by what they hold.
IN_OTHER_WORDS = {"k", "stream", "chunks", "xs", "law", "num_steps", "params"}


def page():
    """The Markdown of the page, from the errors that the calls raise."""
    lines = [
        "# Odd inputs",
        "",
        "This page lists what public functions do with arguments that they cannot use. Each row is",
        "a call of the tests. An error names the argument, what was given, what was expected, and",
        "what to do.",
        "",
        f"The tables have {len(TABLE)} rows. `./run python tests/test_odd_inputs.py` writes them.",
        "In the data of these calls T = 6 steps, B = 2 rows, D = 3 inputs and H = 4 units.",
    ]
    for function in dict.fromkeys(odd.function for odd in TABLE):
        lines += ["", f"## `{function}`", "", "| argument: given | what happens |", "| --- | --- |"]
        for odd in TABLE:
            if odd.function == function:
                texts = (f"{odd.argument}: {odd.given}", outcome_of(odd))
                shown = [text.replace("|", "\\|").replace("\n", " ") for text in texts]
                lines.append(f"| {shown[0]} | {shown[1]} |")
    return "\n".join(lines) + "\n"


def test_every_odd_input_and_the_page():
    """Each row holds, and the page shows the present messages."""
    assert len(TABLE) >= 150
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):  # as users have
        found = page()
    assert found == PAGE.read_text(), "run `python tests/test_odd_inputs.py` and commit the page"


def test_unroll_sums_the_gradient_of_bfloat16_params_in_float32():
    """Its sum over 2,000 steps is that of float32, to the rounding of the result."""
    params = {"rate": jnp.bfloat16(0.5), "bias": jnp.ones((1, 2), jnp.bfloat16)}
    xs = jnp.ones((2000, 1, 2), jnp.bfloat16)

    def leaky(params, carry, x):
        carry = params["rate"] * carry + params["bias"] * x
        return carry, carry

    def loss(params, xs, dtype):
        ys = artbp.unroll(leaky, params, jnp.zeros((1, 2), dtype), xs)[1]
        return jnp.sum(ys.astype(jnp.float32))

    found = jax.grad(loss)(params, xs, jnp.bfloat16)
    wide = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), params)
    expected = jax.grad(loss)(wide, xs.astype(jnp.float32), jnp.float32)
    for name in params:
        got = np.asarray(found[name], np.float32)
        np.testing.assert_allclose(got, np.asarray(expected[name]), rtol=0.02)


def test_a_key_and_a_limit_may_be_traced():
    """The checks are on shapes and dtypes: laws work under jit and vmap."""
    draw = jax.jit(jax.vmap(LAW.sample_length, in_axes=(0, None)))
    found = draw(jax.random.split(key(), 8), jnp.int32(3))
    assert found.shape == (8,) and int(found.max()) <= 3


if __name__ == "__main__":
    PAGE.write_text(page())
    sys.stdout.write(f"{PAGE.name}: {len(TABLE)} rows\n")
