"""Online SGD on influence balancing, many runs ("rows") side by side in one compiled program.

Each row is this loop, and the tests compare it with exactly this loop:

    step, updates = 0, 0
    while step < num_steps:
        grads, state, info = estimator.estimate(params, state, stream)      # one segment
        step += info.length
        rate = eta_0 / sqrt(1 + time_clock * step + update_clock * updates)
        params["theta"] -= rate * grads["theta"]
        updates += 1

Rows differ in their key and in their rates. Each goes on to its own next segment, see
`artbp.contrib.independent_runs`; the windows of `unbiased_tbptt` are those of all rows. A row that
overflows to inf and NaN leaves the others as they are.
"""

import math
import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

import artbp
from experiments.common.arms import Arm
from experiments.common.devices import OverRuns
from experiments.common.report import Row, quartiles
from experiments.influence_balancing import system

_LONGEST_BLOCK = 256  # most steps that the rows run before they wait for each other

# schedule -> (time_clock, update_clock) in eta_0 / sqrt(1 + time_clock * step + update_clock * u).
SCHEDULES = {"time steps": (1.0, 0.0), "updates": (0.0, 1.0), "constant": (0.0, 0.0)}


class Run(NamedTuple):
    """All rows of an arm that was trained; arrays [R] or [R, bins], and wall times in seconds."""

    arm: Arm
    edges: np.ndarray  # [bins + 1]
    loss: np.ndarray  # per time step; that of a segment is spread evenly, masked losses are zero
    theta: np.ndarray  # mean over the bin of the θ in force
    final_theta: np.ndarray
    largest_theta: np.ndarray  # the largest |θ| on the way
    num_segments: np.ndarray
    longest_segment: np.ndarray
    compile_seconds: float  # to trace and compile the program
    run_seconds: float

    def row(self, config: Any) -> Row:
        """What the rows of all studies have in common."""
        num_steps = int(self.edges[-1])
        row: Row = {"arm": self.arm.text, "label": self.arm.label, "num_steps": num_steps}
        row |= {name: config[name] for name in ("eta_0", "schedule", "loss_at", "drive_noise")}
        # Time steps of all rows together, without compilation.
        row["steps_per_second"] = len(self.final_theta) * num_steps / self.run_seconds
        row |= {"compile_seconds": self.compile_seconds, "run_seconds": self.run_seconds}
        return row | {"longest_segment": int(self.longest_segment.max())}

    def curves(self) -> list[Row]:
        """One row per bin: quartiles and median over rows of the loss and of θ."""
        parts = ("lower_quartile", "median", "upper_quartile")
        names = [f"{quantity}_{part}" for quantity in ("loss", "theta") for part in parts]
        found = np.transpose([*quartiles(self.loss), *quartiles(self.theta)])
        first = {"kind": "curve", "arm": self.arm.text}
        return [
            first | {"step": int(end)} | dict(zip(names, values.tolist(), strict=True))
            for end, values in zip(self.edges[1:], found, strict=True)
        ]


class _Progress(NamedTuple):
    """How far the rows are, arrays [R], and sums over time steps of the loss and of θ.

    Segments that end in their bin are added to `open` [2, R]. Only one that crosses the edge at
    `next_edge` changes the history `sums` [2, R, bins], which is larger than all the rest.
    """

    step: Array
    updates: Array
    longest: Array
    largest_theta: Array
    next_edge: Array
    open: Array
    sums: Array


def learning_rates(config: Any) -> tuple[tuple[float, ...], tuple[str, ...]]:
    """(values of eta_0, schedules): every combination of them is trained."""
    if config.study == "rates":
        return tuple(config.grid_eta_0), tuple(config.grid_schedules)
    return (config.eta_0,), (config.schedule,)


def make_rows(rng_keys: Array, eta_0: tuple[float, ...], schedules: tuple[str, ...]) -> tuple:
    """(keys, eta_0, time_clock, update_clock), [R], of all combinations; keys vary fastest."""
    clocks = np.array([SCHEDULES[name] for name in schedules])
    shape = (len(schedules), len(eta_0), len(rng_keys))
    schedule, rate, key = np.indices(shape).reshape(3, -1)
    return rng_keys[key], np.asarray(eta_0, np.float64)[rate], *clocks[schedule].T


def log_bins(num_steps: int, num_bins: int) -> np.ndarray:
    """Edges of at most `num_bins` bins, evenly spaced in the logarithm: 0, 1, …, num_steps, int."""
    edges = np.geomspace(1, num_steps, num_bins)
    return np.unique(np.concatenate([[0], np.rint(edges)]).astype(np.int64))


def train_arm(config: Any, arm: Arm) -> Run:
    """Trains an arm at every schedule, rate and key; on one key where nothing is random."""
    with jax.enable_x64(True):  # a thread begins with JAX's defaults
        is_random = arm.claims.random or config.drive_noise > 0
        boundary_key, drive_key = jax.random.split(jax.random.key(config.seed))
        keys = jax.random.split(boundary_key, config.num_keys)[: None if is_random else 1]
        num_steps, mask, drives = config.num_steps, None, None
        edges = log_bins(num_steps, config.num_bins)
        if config.loss_at == "unroll end":
            period = int(arm.length)
            num_steps = config.num_unrolls * period
            edges = log_bins(config.num_unrolls, config.num_bins) * period
            mask = np.arange(1, num_steps + 1) % period == 0
        if config.drive_noise > 0:
            noise = jax.random.normal(drive_key, (config.num_keys, num_steps))
            drives = 1.0 + config.drive_noise * noise
        stream = artbp.Stream(drives, mask=mask, num_steps=num_steps)
        rows = make_rows(keys, *learning_rates(config))
        return train(arm, rows, stream, theta_0=config.theta_0, edges=edges)


def train(arm: Arm, rows: tuple, stream: Any, *, theta_0: float, edges: np.ndarray) -> Run:
    """Trains the rows of `make_rows` over one pass of the stream; the caller enables float64.

    `stream.xs` is None or [R, T], a drive by row; `edges` are from `log_bins`, in time steps.
    """
    started = time.perf_counter()
    given = rows, stream.xs, stream.mask, np.asarray(edges, np.float64), np.float64(theta_0)

    def program(rows: tuple, drives: Any, mask: Any, edges: Array, theta_0: Array) -> tuple:
        given = artbp.Stream(drives, mask=mask, num_steps=stream.num_steps)
        return _program(arm, rows, given, edges, theta_0)

    train_rows = OverRuns(program, in_axes=(0, 0, None, None, None))
    _, run = train_rows.compile(*jax.tree.map(jnp.asarray, given))
    compiled_at = time.perf_counter()
    outputs = jax.tree.map(np.asarray, jax.block_until_ready(run()))
    seconds = compiled_at - started, time.perf_counter() - compiled_at
    return Run._make((arm, edges, *outputs, *seconds))


def _program(arm: Arm, rows: tuple, stream: Any, edges: Array, theta_0: Array) -> tuple:
    """The arrays of a `Run`, in their order."""
    rng_keys, eta_0, time_clock, update_clock = rows
    num_rows, num_steps = len(eta_0), stream.num_steps

    def update(
        params: dict, progress: _Progress, grads: dict, info: Any, finished: Array
    ) -> tuple[dict, _Progress]:
        length = jnp.where(finished, info.length, 0)
        step = progress.step + length
        clock = time_clock * step + update_clock * progress.updates
        rate = eta_0 / jnp.sqrt(1.0 + clock)
        theta = jnp.where(finished, params["theta"] - rate * grads["theta"], params["theta"])
        history = _add_segment(progress, step, info, params["theta"], finished, edges)
        return {"theta": theta}, history._replace(
            step=step,
            updates=progress.updates + finished,
            longest=jnp.maximum(progress.longest, length),
            largest_theta=jnp.maximum(progress.largest_theta, jnp.abs(theta)),
        )

    theta, counts = jnp.full((num_rows,), theta_0), jnp.zeros((num_rows,), jnp.int32)
    next_edge, sums = jnp.full((num_rows,), edges[1]), jnp.zeros((2, num_rows, len(edges) - 1))
    progress = _Progress(counts, counts, counts, jnp.abs(theta), next_edge, sums[..., 0], sums)
    params, stream_axes = {"theta": theta}, None
    if stream.xs is not None:
        stream_axes = artbp.Stream(0, num_steps=num_steps)
    if arm.law is None:
        params, end = _run_windows(arm, update, params, progress, rng_keys, stream, stream_axes)
    else:
        params, end = _run_segments(arm, update, params, progress, rng_keys, stream, stream_axes)
    loss, mean_theta = end.sums / jnp.diff(edges)
    return loss, mean_theta, params["theta"], end.largest_theta, end.updates, end.longest


def _run_segments(
    arm: Arm, update: Any, params: Any, progress: Any, rng_keys: Array, stream: Any, axes: Any
) -> tuple[Any, Any]:
    """Each row in segments of its own."""
    assert arm.law is not None
    # A block is the (mean) length of a segment, or the smallest number of equal parts of it.
    length = math.ceil(arm.length)
    trainer = artbp.contrib.independent_runs(
        system.cell,
        system.loss_fn,
        arm.law,
        update,
        lambda params, progress: progress.step < stream.num_steps,
        compensate=arm.claims.unbiased,
        block_size=math.ceil(length / math.ceil(length / _LONGEST_BLOCK)),
        stream_axes=axes,
    )
    state = trainer.init(system.initial_carry(), rng_keys)
    return trainer.run(params, progress, state, stream)[:2]


def _run_windows(
    arm: Arm, update: Any, params: Any, progress: Any, rng_keys: Array, stream: Any, axes: Any
) -> tuple[Any, Any]:
    """All rows in the same windows, with look-backs of their own."""
    estimator = arm.build(system.cell, system.loss_fn)
    estimate = jax.vmap(estimator.estimate, in_axes=(0, 0, axes))

    def window(_: Array, loop: Any) -> Any:
        params, progress, state = loop
        grads, state, info = estimate(params, state, stream)
        finished = jnp.ones_like(info.length, bool)
        return *update(params, progress, grads, info, finished), state

    init = lambda params, key: estimator.init(params, system.initial_carry(), rng_key=key)  # noqa: E731
    loop = params, progress, jax.vmap(init)(params, rng_keys)
    return jax.lax.fori_loop(0, math.ceil(stream.num_steps / arm.length), window, loop)[:2]


def _add_segment(
    progress: _Progress, end: Array, info: Any, theta: Array, finished: Array, edges: Array
) -> _Progress:
    """Adds the segments from `progress.step` to `end` that are finished to the history."""
    crosses = finished & (end >= progress.next_edge)

    def close_bins(progress: _Progress) -> _Progress:
        start = progress.step[:, None]
        stop = jnp.where(crosses, end, progress.step)[:, None]
        # [R, bins]: how many steps of the segment lie in each bin.
        overlap = jnp.minimum(stop, edges[1:]) - jnp.maximum(start, edges[:-1])
        is_open = crosses[:, None] & (edges[:-1] <= start) & (start < edges[1:])
        mean = jnp.stack([info.loss_sum / info.length, theta])[..., None]
        sums = progress.sums + jnp.where(is_open, progress.open[..., None], 0.0)
        # Without `where`, a mean that is inf or NaN would spoil bins that it is not in.
        sums = sums + jnp.where(overlap > 0, overlap * mean, 0.0)
        beyond = jnp.min(jnp.where(edges > end[:, None], edges, jnp.inf), axis=1)
        return progress._replace(
            sums=sums,
            open=jnp.where(crosses, 0.0, progress.open),
            next_edge=jnp.where(crosses, beyond, progress.next_edge),
        )

    progress = jax.lax.cond(jnp.any(crosses), close_bins, lambda progress: progress, progress)
    added = jnp.stack([info.loss_sum, info.length * theta])
    return progress._replace(open=progress.open + jnp.where(finished & ~crosses, added, 0.0))
