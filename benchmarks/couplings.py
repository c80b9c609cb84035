"""What drawing the boundaries of several rows, or several draws, together gains in variance.

    python -m benchmarks.couplings [--results FILE]

Nothing is timed. On a short stream the covariances are exact: all boundary patterns of a row with
their probabilities, and for two rows those of all pairs of patterns under the coupling. On a long
one, where rows have drifted apart, the trace is sampled, with its standard error.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import flatten_util

import artbp
from artbp.contrib import coupling_variance
from artbp.contrib.couplings import Coupling
from artbp.diagnostics import gradients_of_gates, truncation_covariance
from artbp.truncation import TruncationLaw, polynomial
from benchmarks import common

ROWS = 8
SHORT, SHORT_LAW = 11, polynomial(4, 4.0)
LONG, LONG_LAW = 128, polynomial(16, 4.0)
NUM_SAMPLES = 2_048
COUPLINGS: tuple[Coupling, ...] = ("shared", "independent", "antithetic", "stratified")


class Model(NamedTuple):
    """Arguments of `coupling_variance`, of one time scale: the mean length of the law."""

    cell: Any
    loss_fn: Any
    params: Any
    carry: jax.Array
    stream: artbp.Stream


def linear(num_steps: int, mean_length: float, alike: bool) -> Model:
    """s' = ρ·s + θ·x with a memory of 2·L0, squared error; x is 1 and noise."""
    keep = float(np.exp(-1 / (2 * mean_length)))

    def cell(params: Any, carry: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        new = keep * carry + params["theta"] * x
        return new, new

    def loss_fn(params: Any, y: jax.Array, target: jax.Array) -> jax.Array:
        del params, target
        return (y - mean_length) ** 2 / 2

    noise = _by_row(jax.random.normal(jax.random.key(1), (num_steps, ROWS)), alike)
    return Model(
        cell,
        loss_fn,
        {"theta": jnp.asarray(0.5)},
        jnp.zeros(ROWS),
        artbp.Stream(1 + noise / 2, num_steps=num_steps),
    )


def network(num_steps: int, mean_length: float, alike: bool) -> Model:
    """A tanh network of 8 units that forgets over about L0 steps, on noise."""
    keys = jax.random.split(jax.random.key(2), 3)
    params = {
        "recurrent": float(np.exp(-1 / mean_length)) * jax.random.orthogonal(keys[0], 8),
        "input": jax.random.normal(keys[1], (8,)) / 2,
    }

    def cell(params: Any, carry: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        new = jnp.tanh(carry @ params["recurrent"] + x[:, None] * params["input"][None])
        return new, new

    def loss_fn(params: Any, y: jax.Array, target: jax.Array) -> jax.Array:
        del params
        return (jnp.sum(y, axis=-1) - target) ** 2

    noise = jax.random.normal(keys[2], (2, num_steps, ROWS))
    xs, targets = _by_row(noise[0], alike), _by_row(noise[1], alike)
    return Model(cell, loss_fn, params, jnp.zeros((ROWS, 8)), artbp.Stream(xs, targets))


def _by_row(values: jax.Array, alike: bool) -> jax.Array:
    return jnp.broadcast_to(values[:, :1], values.shape) if alike else values


def patterns(num_steps: int) -> np.ndarray:
    """Every pattern of boundaries behind the steps 1, …, T − 1: bool `[2^(T−1), T − 1]`."""
    numbers = np.arange(2 ** (num_steps - 1))
    return (numbers[:, None] >> np.arange(num_steps - 1)) % 2 == 1


def segments_of(pattern: np.ndarray) -> list[tuple[int, bool]]:
    """(length, whether a boundary ended it) of each segment of one pattern."""
    ends = [*(np.flatnonzero(pattern) + 1).tolist(), len(pattern) + 1]
    begins = [0, *ends[:-1]]
    return [(end - begin, end <= len(pattern)) for begin, end in zip(begins, ends, strict=True)]


def uniform_intervals(law: TruncationLaw, num_steps: int) -> np.ndarray:
    """[low, high) of the uniform that makes each event of a segment, `[2·T + 1, 2]`.

    Length = k, at 1, …, T, and length ≥ k, at T + k, which is all that the end of the stream lets
    see; 0: no such segment, nothing asked of the uniform. (length > k ⟺ u ≤ S(k))
    """
    survival = np.concatenate([[1.0], law.survival(np.arange(1, num_steps + 1))])
    equal = np.stack([survival[1:], survival[:-1]], axis=1)
    at_least = np.stack([np.zeros(num_steps), survival[:-1]], axis=1)
    return np.concatenate([[[0.0, 1.0]], equal, at_least])


def joint_of_events(intervals: np.ndarray, coupling: Coupling, num_rows: int) -> np.ndarray:
    """P(row b meets one event, row b' another) of the same segment, for coupled rows b ≠ b'."""
    low, high = intervals[:, 0], intervals[:, 1]
    size = high - low
    if coupling == "independent":
        return np.outer(size, size)

    def overlap(low: np.ndarray, high: np.ndarray) -> np.ndarray:
        ends = np.minimum(intervals[:, 1, None], high) - np.maximum(intervals[:, 0, None], low)
        return np.maximum(ends, 0.0)

    if coupling == "shared":
        return overlap(low, high)
    if coupling == "antithetic":
        return overlap(1 - high, 1 - low)
    # stratified: two different strata of R, each pair equally likely, u uniform within its own.
    edges = np.arange(num_rows + 1) / num_rows
    within = num_rows * overlap(edges[:-1], edges[1:])  # [events, R]
    total = within.sum(axis=1)
    return (np.outer(total, total) - within @ within.T) / (num_rows * (num_rows - 1))


def joint_of_patterns(
    law: TruncationLaw, num_steps: int, coupling: Coupling, num_rows: int
) -> np.ndarray:
    """P(row b has pattern p, row b' pattern q): the segments' uniforms are independent over j."""
    codes = np.zeros((2 ** (num_steps - 1), num_steps), np.int64)
    for p, pattern in enumerate(patterns(num_steps)):
        for j, (length, ended) in enumerate(segments_of(pattern)):
            codes[p, j] = length if ended else num_steps + length
    events = joint_of_events(uniform_intervals(law, num_steps), coupling, num_rows)
    joint = np.ones((len(codes), len(codes)))
    for j in range(num_steps):
        joint *= events[np.ix_(codes[:, j], codes[:, j])]
    return joint


def row_gradients(model: Model, law: TruncationLaw) -> np.ndarray:
    """The gradient of each row under each pattern, float64 `[B, patterns, P]`."""
    num_steps = model.stream.num_steps
    cut = np.pad(patterns(num_steps), ((0, 0), (0, 1)))
    gates = np.zeros(cut.shape)
    for p, pattern in enumerate(cut):
        age = 1
        for t, boundary in enumerate(pattern):
            gates[p, t] = 0.0 if boundary else float(law.compensation(age))
            age = 1 if boundary else age + 1
    found = []
    for row in range(ROWS):
        only = slice(row, row + 1)
        xs, targets = model.stream.xs, model.stream.targets
        gradients = gradients_of_gates(
            model.cell,
            model.loss_fn,
            model.params,
            model.carry[only],
            artbp.Stream(xs[:, only], None if targets is None else targets[:, only]),
            jnp.asarray(gates),
        )
        found.append(jax.vmap(lambda tree: flatten_util.ravel_pytree(tree)[0])(gradients))
    return np.asarray(found, np.float64)


def exact_traces(model: Model, law: TruncationLaw) -> dict[Coupling, float]:
    """The trace of the covariance of the gradient summed over the rows, for each coupling.

    Raises AssertionError where `truncation_covariance` disagrees, for shared or independent rows.
    """
    gradients = row_gradients(model, law)
    num_steps = model.stream.num_steps
    probability = np.diag(joint_of_patterns(law, num_steps, "shared", ROWS))
    centred = gradients - np.einsum("p,bpn->bn", probability, gradients)[:, None]
    of_rows = float(np.einsum("p,bpn,bpn->", probability, centred, centred))
    traces: dict[Coupling, float] = {}
    for coupling in COUPLINGS:
        joint = joint_of_patterns(law, num_steps, coupling, ROWS)
        groups = np.split(centred, ROWS // 2) if coupling == "antithetic" else [centred]
        traces[coupling] = of_rows
        for group in groups:  # rows that are coupled with each other
            total = group.sum(axis=0)
            traces[coupling] += float(np.sum(total * (joint @ total)))
            traces[coupling] -= sum(float(np.sum(row * (joint @ row))) for row in group)
    for coupling in ("shared", "independent"):
        covariance = truncation_covariance(
            model.cell,
            model.loss_fn,
            law,
            model.params,
            model.carry,
            model.stream,
            per_row=coupling == "independent",
        )
        np.testing.assert_allclose(traces[coupling], np.trace(covariance), rtol=1e-9)
    return traces


def measure() -> Iterator[dict[str, Any]]:
    """One row for each model and way to look."""
    for make in (linear, network):
        for alike in (True, False):
            label = {"model": make.__name__, "rows": "alike" if alike else "different data"}
            with jax.enable_x64(True):
                traces = exact_traces(make(SHORT, SHORT_LAW.mean_length, alike), SHORT_LAW)
            yield label | {"T": SHORT, "how": "exact"} | _ratios(traces)
            model = make(LONG, LONG_LAW.mean_length, alike)
            sampled = {name: _sampled(model, name) for name in COUPLINGS}
            base = sampled["independent"][0]
            yield (
                label
                | {"T": LONG, "how": "sampled"}
                | _ratios({name: trace for name, (trace, _) in sampled.items()})
                | {"largest_error": max(error for _, error in sampled.values()) / base}
            )


def _ratios(traces: dict[Coupling, float]) -> dict[str, float]:
    return {name: trace / traces["independent"] for name, trace in traces.items()}


def _sampled(model: Model, coupling: Coupling) -> tuple[float, float]:
    @jax.jit
    def sample(params: Any, rng_key: jax.Array) -> Any:
        return coupling_variance(
            model.cell,
            model.loss_fn,
            LONG_LAW,
            params,
            model.carry,
            model.stream,
            rng_key,
            coupling=coupling,
            num_samples=NUM_SAMPLES,
        )

    found = sample(model.params, jax.random.key(0))
    return float(found.trace), float(found.standard_error)


def main() -> None:
    """Prints the table."""
    arguments = common.make_parser(__doc__).parse_args()
    columns = {"model": "model", "rows": "rows", "T": "T", "how": "how"}
    columns |= {name: name for name in COUPLINGS} | {"largest_error": "largest standard error"}
    common.report(list(measure()), columns, arguments.results)


if __name__ == "__main__":
    main()
