"""The training loop: segments in, updates out, interrupted at any time, resumed bit for bit.

How an experiment uses it:

    def main(config, command_line):                         # config: load_config(...)
        workdir = open_workdir(command_line.workdir, config, resume=command_line.resume)
        result = train(
            artbp.artbp(cell, loss_fn, law),
            make_optimizer("adam", learning_rate=config.learning_rate),
            stream, params, carry,
            rng_key=jax.random.key(config.seed),
            workdir=workdir,
            options=LoopOptions(num_epochs=config.num_epochs, best_metric="valid_bits"),
            evaluate=lambda params: {"valid_bits": ..., "valid_loss": ...},
        )
        with Checkpoints(workdir.checkpoints_path) as checkpoints:
            best_params, record = checkpoints.restore_best(result.params)

What a run means, whatever is in flight, saved or killed meanwhile:

    state = init(params, carry)
    for epoch in range(num_epochs):                         # an epoch is one pass of the stream
        while not end of stream:
            repeat segments_per_chunk times, or until the end of the stream:
                grads, estimator_state, info = estimate(params, estimator_state, stream)
                params, opt_state = optimizer step                       # one per segment
            write one "train" row of metrics                # a chunk
            every measure_every updates: write one "measurement" row: measure(...)
        write one "evaluation" row of metrics: evaluate(params)
        save the parameters if they are the best so far; save a checkpoint

A chunk is one call of a compiled program, and ends at segments_per_chunk segments, at the end of
the stream or at a bad segment: at places that depend on the trajectory only. The next chunk is
dispatched before the metrics of the last are fetched, so that the device does not wait for the
host; a chunk dispatched beyond the end of an epoch runs no segment, because the host has not yet
allowed the next epoch. Checkpoints are taken between chunks and touch nothing of the trajectory.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

import artbp
from experiments.common import chunks
from experiments.common.checkpoints import Checkpoints
from experiments.common.interrupts import catch_interrupts
from experiments.common.metrics import MetricsWriter
from experiments.common.options import LoopOptions
from experiments.common.progress import Progress, ProgressBar
from experiments.common.session import Measure, Session
from experiments.common.workdir import Workdir

__all__ = ["LoopOptions", "TrainResult", "train"]


@dataclasses.dataclass(frozen=True)
class TrainResult:
    """A finished run.

    Attributes:
        params: after the last update. The best ones are in the workdir:
            `Checkpoints(workdir.checkpoints_path).restore_best(result.params)`.
        progress: the host's counters: epochs, updates, time steps, best value and its epoch,
            seconds spent.
    """

    params: Any
    progress: Progress


def train(
    estimator: artbp.GradientEstimator,
    optimizer: optax.GradientTransformation,
    stream: artbp.Stream,
    params: Any,
    carry: Any,
    *,
    rng_key: jax.Array,
    workdir: Workdir,
    options: LoopOptions,
    evaluate: Callable[[Any], Mapping[str, float]] | None = None,
    measure: Measure | None = None,
) -> TrainResult:
    """Trains `params`, one update per segment, or goes on with the run that `workdir` holds.

    A workdir with a checkpoint is resumed: `open_workdir` has checked that it is the same run and
    that the user asked for it. Arguments must then be those of the first call; `params` and
    `carry` give shapes only. The arguments are not donated.

    Rows of `metrics.jsonl`, where "time" holds everything that may differ between equal runs:

        {"kind": "train", "epoch", "chunk", "update", "time_step", "loss", "bits", "segments",
         "mean_length", "max_length", "max_compensation", "max_weight", "max_gradient_norm",
         "time": {"elapsed_seconds", "steps_per_second"}}
        {"kind": "measurement", "epoch", "update", "time_step", <the values of measure>, "time"}
        {"kind": "evaluation", "epoch", "update", "time_step", "train_loss", "train_bits",
         <the values of evaluate>, "is_best" (with best_metric only), "time": {...}}

    "epoch" counts from 1; "loss" is the mean over the losses of the row in nats, "bits" the same
    over ln 2; gradient norms are taken before clipping; a value that is not finite is null.

    Args:
        estimator: made by `artbp.artbp`, `artbp.tbptt` or `artbp.bptt`.
        optimizer: any optax optimiser that needs gradients, parameters and the loss value.
        stream: the training data; kept on the device.
        params: initial parameters.
        carry: initial carry of the cell.
        rng_key: typed key; drives the boundaries.
        workdir: where the run lives, see `open_workdir`.
        options: see `LoopOptions`.
        evaluate: called with the parameters after each epoch. It must not keep them: the next
            chunk reuses their memory.
        measure: called with the parameters, the estimator's state, the stream and the number of
            updates so far, see `LoopOptions.measure_every`; what it returns are numbers, such as
            those of `artbp.diagnostics.shadow`. It must keep nothing either, and the run goes on
            as without it, bit for bit.

    Raises:
        TrainingDivergedError: a segment had a loss or a gradient that was not finite, or a loss
            above max_loss. Its update is not applied; the last checkpoint stays as it was. Or
            best_metric was not finite.
        TrainingInterruptedError: Ctrl-C or SIGTERM; a checkpoint was saved first.
        CheckpointError: the workdir's checkpoint does not fit these arguments.
        ExperimentError: `evaluate` does not return best_metric.
        ValueError, TypeError: from the estimator, such as parameters that hold NaN.
    """
    make_chunk = chunks.compiled_chunk if options.driver == "compiled" else chunks.host_driven_chunk
    run_chunk = make_chunk(
        estimator,
        optimizer,
        segments_per_chunk=options.segments_per_chunk,
        max_loss=options.max_loss,
    )
    stream = jax.device_put(stream)
    assert stream.num_steps is not None, "Stream infers it from its arrays"
    state = _initial_state(estimator, optimizer, params, carry, rng_key)
    with Checkpoints(workdir.checkpoints_path) as checkpoints:
        state, progress = _restore(checkpoints, state)
        with (
            MetricsWriter(
                workdir.metrics_path,
                cursor=progress.metrics_cursor,
                tensorboard_path=workdir.tensorboard_path if options.tensorboard else None,
                step=progress.updates,
            ) as metrics,
            ProgressBar(
                total_steps=options.num_epochs * stream.num_steps,
                done_steps=progress.time_steps,
                show=options.progress_bar,
            ) as bar,
            catch_interrupts() as interrupts,
        ):
            session = Session(
                run_chunk,
                stream,
                state,
                progress,
                options,
                evaluate,
                measure,
                checkpoints,
                metrics,
                bar,
            )
            session.to_the_end(interrupts)
    return TrainResult(params=session.state.params, progress=progress)


def _initial_state(
    estimator: artbp.GradientEstimator,
    optimizer: optax.GradientTransformation,
    params: Any,
    carry: Any,
    rng_key: jax.Array,
) -> chunks.TrainState:
    # A copy of every leaf: the state is donated, and neither the caller's arrays nor two leaves
    # that share one array (the carry and the initial carry) may be. A dtype makes weak types
    # strong: the second chunk would be compiled again otherwise.
    return jax.tree.map(
        lambda leaf: jnp.array(leaf, dtype=jnp.result_type(leaf)),
        chunks.TrainState(
            params=params,
            opt_state=optimizer.init(params),
            estimator_state=estimator.init(params, carry, rng_key=rng_key),
            epoch=jnp.zeros((), jnp.int32),
            healthy=jnp.ones((), bool),
        ),
    )


def _restore(
    checkpoints: Checkpoints, fresh: chunks.TrainState
) -> tuple[chunks.TrainState, Progress]:
    scratch = fresh.estimator_state.scratch
    like = fresh._replace(estimator_state=fresh.estimator_state._replace(scratch=()))
    restored = checkpoints.restore_latest(like)
    if restored is None:
        return fresh, Progress()
    state, progress = restored
    state = state._replace(estimator_state=state.estimator_state._replace(scratch=scratch))
    return state, Progress(**progress)
