"""Online SGD on influence balancing, many runs ("rows") side by side in one compiled program.

Each row is this loop, and the tests compare it with exactly this loop:

    step, updates = 0, 0
    while step < num_steps:
        grads, state, info = estimator.estimate(params, state, stream)      # one segment
        step += info.length
        rate = eta_0 / sqrt(1 + time_clock * step + update_clock * updates)
        params["theta"] -= rate * grads["theta"]
        updates += 1

Rows differ in their key and in their rates. Each goes on to its own next segment
(`artbp.contrib.independent_runs`), and one that has reached the end keeps its θ until the last one
has. Rows never mix, so a row that overflows to inf and NaN leaves the others as they are.
"""

import math
import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import artbp
from experiments.common.arms import Arm
from experiments.common.report import Row, quartiles
from experiments.influence_balancing import system

# Most steps that the rows run before they wait for each other.
_LONGEST_BLOCK = 256

# schedule -> (time_clock, update_clock) in eta_0 / sqrt(1 + time_clock * step + update_clock * u).
SCHEDULES = {"time steps": (1.0, 0.0), "updates": (0.0, 1.0), "constant": (0.0, 0.0)}


class Rows(NamedTuple):
    """What differs between the runs of one program, over rows [R]: typed keys, from which the
    boundaries are drawn, and float64 arrays of the learning rate."""

    rng_key: jax.Array
    eta_0: np.ndarray
    time_clock: np.ndarray
    update_clock: np.ndarray


class Run(NamedTuple):
    """An arm that was trained, all rows of it.

    Attributes:
        arm, edges: as for `train`.
        loss: [R, bins], mean per time step of the bin. The loss of a segment is spread evenly over
            its steps; masked losses count as zero.
        theta: [R, bins], mean over the bin of the θ in force.
        final_theta, largest_theta: [R], θ at the end, and the largest |θ| on the way.
        num_segments, longest_segment: [R], int32.
        compile_seconds, run_seconds: wall time to trace and compile the program, and to run it.
    """

    arm: Arm
    edges: np.ndarray
    loss: np.ndarray
    theta: np.ndarray
    final_theta: np.ndarray
    largest_theta: np.ndarray
    num_segments: np.ndarray
    longest_segment: np.ndarray
    compile_seconds: float
    run_seconds: float

    @property
    def num_steps(self) -> int:
        """Time steps of each row."""
        return int(self.edges[-1])

    @property
    def costs(self) -> Row:
        """Fields of a row of the results: time steps of all rows together per second without
        compilation, the seconds, and the longest segment."""
        return {
            "steps_per_second": len(self.final_theta) * self.num_steps / self.run_seconds,
            "compile_seconds": self.compile_seconds,
            "run_seconds": self.run_seconds,
            "longest_segment": int(self.longest_segment.max()),
        }

    def curves(self) -> list[Row]:
        """One row per bin: quartiles and median over rows of the loss and of θ."""
        names = ("lower_quartile", "median", "upper_quartile")
        found = {
            f"{quantity}_{name}": curve
            for quantity, values in (("loss", self.loss), ("theta", self.theta))
            for name, curve in zip(names, quartiles(values), strict=True)
        }
        return [
            {"kind": "curve", "arm": self.arm.text, "step": int(end)}
            | {name: float(curve[i]) for name, curve in found.items()}
            for i, end in enumerate(self.edges[1:])
        ]


class _Progress(NamedTuple):
    """How far the rows are, arrays [R], and what the history holds so far, [R, bins].

    Most segments end in the bin that they begin in. These are added up in `open_loss` and
    `open_theta` until a segment crosses the edge of the bin at `next_edge`. Only then is the
    history touched, which is larger than all the rest.
    """

    step: jax.Array
    updates: jax.Array
    longest: jax.Array
    largest_theta: jax.Array
    next_edge: jax.Array
    open_loss: jax.Array
    open_theta: jax.Array
    loss: jax.Array
    theta_sum: jax.Array


def learning_rates(config: Any) -> tuple[tuple[float, ...], tuple[str, ...]]:
    """(values of eta_0, schedules): every combination of them is trained."""
    if config.study == "rates":
        return tuple(config.grid_eta_0), tuple(config.grid_schedules)
    return (config.eta_0,), (config.schedule,)


def make_rows(rng_keys: jax.Array, eta_0: tuple[float, ...], schedules: tuple[str, ...]) -> Rows:
    """All combinations, keys varying fastest: row = (schedule, eta_0, key) in C order.

    The boundaries depend on the key alone: rows of one key cut at the same steps.
    """
    clocks = np.array([SCHEDULES[name] for name in schedules])
    shape = (len(schedules), len(eta_0), len(rng_keys))
    schedule, rate, key = np.indices(shape).reshape(3, -1)
    return Rows(rng_keys[key], np.asarray(eta_0, np.float64)[rate], *clocks[schedule].T)


def log_bins(num_steps: int, num_bins: int) -> np.ndarray:
    """Edges of at most `num_bins` bins, evenly spaced in the logarithm: 0, 1, …, num_steps, int."""
    edges = np.geomspace(1, num_steps, num_bins)
    return np.unique(np.concatenate([[0], np.rint(edges)]).astype(np.int64))


def train_arm(config: Any, arm: Arm) -> Run:
    """Trains an arm on all combinations of schedules, rates and keys.

    All arms are given the same keys, so that two with the same law cut at the same steps. Where
    nothing is random, one key stands for all.
    """
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


def train(arm: Arm, rows: Rows, stream: artbp.Stream, *, theta_0: float, edges: np.ndarray) -> Run:
    """Trains every row over one pass of the stream, from θ = theta_0.

    Args:
        arm: "tbptt", "artbp" or "uncompensated".
        rows: R runs.
        stream: `num_steps` steps. Its `xs` is None, or [R, T], a drive for each row.
        theta_0: the θ they start from.
        edges: [bins + 1] time steps that bound the bins of the history, from `log_bins`.
    """
    with jax.enable_x64(True):
        started = time.perf_counter()
        given = rows, stream, np.asarray(edges, np.float64), np.float64(theta_0)
        arguments = jax.tree.map(jnp.asarray, given)
        compiled = jax.jit(_program, static_argnums=0).lower(arm, *arguments).compile()
        compiled_at = time.perf_counter()
        outputs = jax.tree.map(np.asarray, jax.block_until_ready(compiled(*arguments)))
        seconds = compiled_at - started, time.perf_counter() - compiled_at
    return Run(arm, edges, *outputs, *seconds)


def _program(
    arm: Arm, rows: Rows, stream: artbp.Stream, edges: jax.Array, theta_0: jax.Array
) -> tuple[jax.Array, ...]:
    """The arrays of a `Run`, in their order."""
    num_rows, num_bins = rows.eta_0.shape[0], edges.shape[0] - 1
    num_steps = stream.num_steps

    def update(
        params: dict,
        progress: _Progress,
        grads: dict,
        info: artbp.EstimatorInfo,
        finished: jax.Array,
    ) -> tuple[dict, _Progress]:
        step = progress.step + jnp.where(finished, info.length, 0)
        clock = rows.time_clock * step + rows.update_clock * progress.updates
        rate = rows.eta_0 / jnp.sqrt(1.0 + clock)
        theta = jnp.where(finished, params["theta"] - rate * grads["theta"], params["theta"])
        history = _add_segment(progress, step, info, params["theta"], finished, edges)
        return {"theta": theta}, history._replace(
            step=step,
            updates=progress.updates + finished,
            longest=jnp.maximum(progress.longest, jnp.where(finished, info.length, 0)),
            largest_theta=jnp.maximum(progress.largest_theta, jnp.abs(theta)),
        )

    assert arm.law is not None
    # A block is the (mean) length of a segment, or the smallest number of equal parts of it.
    length = math.ceil(arm.length)
    trainer = artbp.contrib.independent_runs(
        system.cell,
        system.loss_fn,
        arm.law,
        update,
        lambda params, progress: progress.step < num_steps,
        compensate=arm.claims.unbiased,
        block_size=math.ceil(length / math.ceil(length / _LONGEST_BLOCK)),
        stream_axes=None if stream.xs is None else artbp.Stream(0, num_steps=num_steps),
    )
    theta = jnp.full((num_rows,), theta_0)
    counts, zeros = jnp.zeros((num_rows,), jnp.int32), jnp.zeros((num_rows,))
    sums = jnp.zeros((num_rows, num_bins))
    next_edge = jnp.full((num_rows,), edges[1])
    progress = _Progress(
        counts, counts, counts, jnp.abs(theta), next_edge, zeros, zeros, sums, sums
    )
    state = trainer.init(system.initial_carry(), rows.rng_key)
    params, progress, _ = trainer.run({"theta": theta}, progress, state, stream)
    width = jnp.diff(edges)
    return (
        progress.loss / width,
        progress.theta_sum / width,
        params["theta"],
        progress.largest_theta,
        progress.updates,
        progress.longest,
    )


def _add_segment(
    progress: _Progress,
    end: jax.Array,
    info: artbp.EstimatorInfo,
    theta: jax.Array,
    finished: jax.Array,
    edges: jax.Array,
) -> _Progress:
    """Adds the segments from `progress.step` to `end` that are finished to the history."""
    crosses = finished & (end >= progress.next_edge)
    inside = finished & ~crosses

    def close_bins(progress: _Progress) -> _Progress:
        start = progress.step[:, None]
        stop = jnp.where(crosses, end, progress.step)[:, None]
        # [R, bins]: how many steps of the segment lie in each bin.
        overlap = jnp.minimum(stop, edges[1:]) - jnp.maximum(start, edges[:-1])
        is_open = crosses[:, None] & (edges[:-1] <= start) & (start < edges[1:])
        beyond = jnp.min(jnp.where(edges > end[:, None], edges, jnp.inf), axis=1)

        def add(history: jax.Array, open_sum: jax.Array, value: jax.Array) -> jax.Array:
            history = history + jnp.where(is_open, open_sum[:, None], 0.0)
            # Without `where`, a value that is inf or NaN would spoil bins that it is not in.
            return history + jnp.where(overlap > 0, overlap * value[:, None], 0.0)

        return progress._replace(
            loss=add(progress.loss, progress.open_loss, info.loss_sum / info.length),
            theta_sum=add(progress.theta_sum, progress.open_theta, theta),
            open_loss=jnp.where(crosses, 0.0, progress.open_loss),
            open_theta=jnp.where(crosses, 0.0, progress.open_theta),
            next_edge=jnp.where(crosses, beyond, progress.next_edge),
        )

    progress = jax.lax.cond(jnp.any(crosses), close_bins, lambda progress: progress, progress)
    return progress._replace(
        open_loss=progress.open_loss + jnp.where(inside, info.loss_sum, 0.0),
        open_theta=progress.open_theta + jnp.where(inside, info.length * theta, 0.0),
    )
