"""Online SGD on influence balancing, many runs ("rows") side by side in one compiled program.

Each row is this loop, and the tests compare it with exactly this loop:

    step, updates = 0, 0
    while step < num_steps:
        grads, state, info = estimator.estimate(params, state, stream)      # one segment
        step += info.length
        rate = eta_0 / sqrt(1 + time_clock * step + update_clock * updates)
        params["theta"] -= rate * grads["theta"]
        updates += 1

Rows differ in their key and in their rates; they share the estimator, hence the compiled code. A
row that has reached the end waits with θ frozen until the last one has. Rows never mix, so a row
that overflows to inf and NaN spoils nobody else.
"""

import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import artbp
from experiments.influence_balancing import system

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


class _Loop(NamedTuple):
    theta: jax.Array
    state: Any
    step: jax.Array
    updates: jax.Array
    longest: jax.Array
    largest_theta: jax.Array
    loss: jax.Array
    theta_sum: jax.Array


def make_rows(rng_keys: jax.Array, eta_0: tuple[float, ...], schedules: tuple[str, ...]) -> Rows:
    """All combinations, keys varying fastest: row = (schedule, eta_0, key) in C order.

    The boundaries depend on the key alone, so rows of one key keep pace with one another.
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
    estimator: artbp.GradientEstimator,
    rows: Rows,
    stream: artbp.Stream,
    *,
    theta_0: float,
    edges: np.ndarray,
    drive_is_per_row: bool = False,
) -> tuple[History, Timing]:
    """Trains every row over one pass of the stream.

    Args:
        estimator: of `methods.Method.estimator`.
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
        compiled = program.lower(estimator, drive_is_per_row, *arguments).compile()
        compiled_at = time.perf_counter()
        outputs = jax.block_until_ready(compiled(*arguments))
        history = History(**{name: np.asarray(value) for name, value in outputs.items()})
        timing = Timing(compiled_at - started, time.perf_counter() - compiled_at)
    return history, timing


def _program(
    estimator: artbp.GradientEstimator,
    drive_is_per_row: bool,
    rows: Rows,
    stream: artbp.Stream,
    edges: jax.Array,
    theta_0: jax.Array,
) -> dict[str, jax.Array]:
    num_rows, num_bins = rows.eta_0.shape[0], edges.shape[0] - 1
    num_steps = stream.num_steps
    assert num_steps is not None  # Stream has seen to it
    stream_axes = jax.tree.map(lambda _: None, stream)
    if drive_is_per_row:
        stream_axes = artbp.Stream(0, num_steps=num_steps)
    estimate = jax.vmap(estimator.estimate, in_axes=(0, 0, stream_axes))

    def init(theta: jax.Array, rng_key: jax.Array) -> Any:
        return estimator.init({"theta": theta}, system.initial_carry(), rng_key=rng_key)

    def any_running(loop: _Loop) -> jax.Array:
        return jnp.any(loop.step < num_steps)

    def one_segment(loop: _Loop) -> _Loop:
        running = loop.step < num_steps
        grads, state, info = estimate({"theta": loop.theta}, loop.state, stream)
        step = loop.step + jnp.where(running, info.length, 0)
        clock = rows.time_clock * step + rows.update_clock * loop.updates
        rate = rows.eta_0 / jnp.sqrt(1.0 + clock)
        # The freeze selects over θ alone, never over the state with its large scratch.
        theta = jnp.where(running, loop.theta - rate * grads["theta"], loop.theta)
        overlap = _overlap(loop.step, step, edges)
        mean_loss = info.loss_sum / info.length
        return _Loop(
            theta=theta,
            state=state,
            step=step,
            updates=loop.updates + running,
            longest=jnp.maximum(loop.longest, jnp.where(running, info.length, 0)),
            largest_theta=jnp.maximum(loop.largest_theta, jnp.abs(theta)),
            loss=loop.loss + _where_positive(overlap, mean_loss),
            theta_sum=loop.theta_sum + _where_positive(overlap, loop.theta),
        )

    theta = jnp.full((num_rows,), theta_0)
    counts = jnp.zeros((num_rows,), jnp.int32)
    sums = jnp.zeros((num_rows, num_bins))
    state = jax.vmap(init)(theta, rows.rng_key)
    loop = _Loop(theta, state, counts, counts, counts, jnp.abs(theta), sums, sums)
    loop = jax.lax.while_loop(any_running, one_segment, loop)
    width = jnp.diff(edges)
    return {
        "loss": loop.loss / width,
        "theta": loop.theta_sum / width,
        "final_theta": loop.theta,
        "largest_theta": loop.largest_theta,
        "num_segments": loop.updates,
        "longest_segment": loop.longest,
    }


def _overlap(start: jax.Array, end: jax.Array, edges: jax.Array) -> jax.Array:
    """How many steps of [start, end) lie in each bin; [R] and [R] to [R, bins]."""
    first = jnp.maximum(start[:, None], edges[None, :-1])
    last = jnp.minimum(end[:, None], edges[None, 1:])
    return jnp.maximum(last - first, 0.0)


def _where_positive(overlap: jax.Array, value: jax.Array) -> jax.Array:
    """overlap · value, and 0 where nothing overlaps, also for a value that is inf or NaN."""
    return jnp.where(overlap > 0, overlap * value[:, None], 0.0)
