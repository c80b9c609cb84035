"""Online SGD on influence balancing, many runs ("rows") side by side in one compiled program.

Each row is this loop, and the tests compare it with exactly this loop:

    step, updates = 0, 0
    while step < num_steps:
        grads, state, info = estimator.estimate(params, state, stream)      # one segment
        step += info.length
        rate = eta_0 / sqrt(1 + time_clock * step + update_clock * updates)
        params["theta"] -= rate * grads["theta"]
        updates += 1

Rows differ in their key and in their rates; they share the method, hence the compiled code. Each
goes on to its own next segment (`artbp.contrib.independent_runs`), and one that has reached the end
rests with θ frozen until the last one has. Rows never mix, so a row that overflows to inf and NaN
spoils nobody else.
"""

import math
import time
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import artbp
from experiments.influence_balancing import system
from experiments.influence_balancing.methods import Method

# Most steps that the rows run before they wait for each other.
_LONGEST_BLOCK = 256

# schedule -> (time_clock, update_clock) in eta_0 / sqrt(1 + time_clock * step + update_clock * u).
SCHEDULES = {"time steps": (1.0, 0.0), "updates": (0.0, 1.0), "constant": (0.0, 0.0)}


class Rows(NamedTuple):
    """What differs between the runs of one program; arrays over rows [R].

    rng_key: typed keys, from which the boundaries are drawn. eta_0, time_clock, update_clock:
    float64, the learning rate as in the module docstring.
    """

    rng_key: jax.Array
    eta_0: np.ndarray
    time_clock: np.ndarray
    update_clock: np.ndarray


class History(NamedTuple):
    """What a program returns, float64 unless said otherwise.

    loss: [R, bins] mean loss per time step of the bin, a segment's loss spread evenly over its
    steps, and masked losses counted as zero. theta: [R, bins] mean over the bin of the θ in
    force. final_theta: [R]. largest_theta: [R] largest |θ| on the way. num_segments,
    longest_segment: [R] int32.
    """

    loss: np.ndarray
    theta: np.ndarray
    final_theta: np.ndarray
    largest_theta: np.ndarray
    num_segments: np.ndarray
    longest_segment: np.ndarray


class Timing(NamedTuple):
    """Wall seconds: to trace and compile the program, and to run it."""

    compile_seconds: float
    run_seconds: float


class _Progress(NamedTuple):
    """How far the rows are, arrays [R], and what the history holds so far, [R, bins].

    Most segments end in the bin that they begin in. These are added up in `open_loss` and
    `open_theta` until a segment crosses the edge of the bin at `next_edge`: only then is the
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


def make_rows(rng_keys: jax.Array, eta_0: tuple[float, ...], schedules: tuple[str, ...]) -> Rows:
    """All combinations, keys varying fastest: row = (schedule, eta_0, key) in C order.

    The boundaries depend on the key alone: rows of one key cut at the same steps.
    """
    clocks = np.array([SCHEDULES[name] for name in schedules])
    shape = (len(schedules), len(eta_0), len(rng_keys))
    index = np.indices(shape).reshape(3, -1)
    return Rows(
        rng_key=rng_keys[index[2]],
        eta_0=np.asarray(eta_0, np.float64)[index[1]],
        time_clock=clocks[index[0], 0],
        update_clock=clocks[index[0], 1],
    )


def log_bins(num_steps: int, num_bins: int) -> np.ndarray:
    """Edges of at most `num_bins` bins, evenly spaced in the logarithm: 0, 1, …, num_steps, int."""
    edges = np.geomspace(1, num_steps, num_bins)
    return np.unique(np.concatenate([[0], np.rint(edges)]).astype(np.int64))


def train(
    method: Method,
    rows: Rows,
    stream: artbp.Stream,
    *,
    theta_0: float,
    edges: np.ndarray,
    drive_is_per_row: bool = False,
) -> tuple[History, Timing]:
    """Trains every row over one pass of the stream.

    Args:
        method: how to truncate.
        rows: R runs.
        stream: `num_steps` steps; shared by the rows.
        theta_0: the θ they start from.
        edges: [bins + 1] time steps that bound the bins of the history, from `log_bins`.
        drive_is_per_row: `stream.xs` is [R, T], a drive for each row, instead of [T].

    Returns:
        The history as NumPy arrays, and the timing.
    """
    # JAX's float64 switch belongs to the thread: two methods may train in two threads.
    with jax.enable_x64(True):
        rows = jax.tree.map(jnp.asarray, rows)
        stream = jax.tree.map(jnp.asarray, stream)
        started = time.perf_counter()
        arguments = (rows, stream, jnp.asarray(edges, jnp.float64), jnp.float64(theta_0))
        program = jax.jit(_program, static_argnums=(0, 1))
        compiled = program.lower(method, drive_is_per_row, *arguments).compile()
        compiled_at = time.perf_counter()
        outputs = jax.block_until_ready(compiled(*arguments))
        history = History(**{name: np.asarray(value) for name, value in outputs.items()})
        timing = Timing(compiled_at - started, time.perf_counter() - compiled_at)
    return history, timing


def _program(
    method: Method,
    drive_is_per_row: bool,
    rows: Rows,
    stream: artbp.Stream,
    edges: jax.Array,
    theta_0: jax.Array,
) -> dict[str, jax.Array]:
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

    trainer = artbp.contrib.independent_runs(
        system.cell,
        system.loss_fn,
        method.law,
        update,
        lambda params, progress: progress.step < num_steps,
        compensate=method.compensate,
        block_size=_block_size(method),
        stream_axes=artbp.Stream(0, num_steps=num_steps) if drive_is_per_row else None,
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
    return {
        "loss": progress.loss / width,
        "theta": progress.theta_sum / width,
        "final_theta": params["theta"],
        "largest_theta": progress.largest_theta,
        "num_segments": progress.updates,
        "longest_segment": progress.longest,
    }


def _block_size(method: Method) -> int:
    """The (mean) length of a segment, or the smallest number of equal parts of it."""
    length = math.ceil(method.unroll_length)
    return math.ceil(length / math.ceil(length / _LONGEST_BLOCK))


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
        overlap = _overlap(progress.step, jnp.where(crosses, end, progress.step), edges)
        start = progress.step[:, None]
        is_open = crosses[:, None] & (edges[:-1] <= start) & (start < edges[1:])
        mean_loss = info.loss_sum / info.length
        beyond = jnp.min(jnp.where(edges > end[:, None], edges, jnp.inf), axis=1)
        return progress._replace(
            loss=progress.loss
            + jnp.where(is_open, progress.open_loss[:, None], 0.0)
            + _where_positive(overlap, mean_loss),
            theta_sum=progress.theta_sum
            + jnp.where(is_open, progress.open_theta[:, None], 0.0)
            + _where_positive(overlap, theta),
            open_loss=jnp.where(crosses, 0.0, progress.open_loss),
            open_theta=jnp.where(crosses, 0.0, progress.open_theta),
            next_edge=jnp.where(crosses, beyond, progress.next_edge),
        )

    progress = jax.lax.cond(jnp.any(crosses), close_bins, lambda progress: progress, progress)
    return progress._replace(
        open_loss=progress.open_loss + jnp.where(inside, info.loss_sum, 0.0),
        open_theta=progress.open_theta + jnp.where(inside, info.length * theta, 0.0),
    )


def _overlap(start: jax.Array, end: jax.Array, edges: jax.Array) -> jax.Array:
    """How many steps of [start, end) lie in each bin; [R] and [R] to [R, bins]."""
    first = jnp.maximum(start[:, None], edges[None, :-1])
    last = jnp.minimum(end[:, None], edges[None, 1:])
    return jnp.maximum(last - first, 0.0)


def _where_positive(overlap: jax.Array, value: jax.Array) -> jax.Array:
    """overlap · value, and 0 where nothing overlaps, also for a value that is inf or NaN."""
    return jnp.where(overlap > 0, overlap * value[:, None], 0.0)
