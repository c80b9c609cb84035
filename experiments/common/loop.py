"""The training loop: it may be interrupted at any time, and resumes bit for bit.

A run computes the following, also when it is saved, killed and resumed in between:

    state = init(params, carry)
    for epoch in range(num_epochs):                         # an epoch is one pass of the stream
        while not end of stream:
            repeat segments_per_chunk times, or until the end of the stream:
                grads, estimator_state, info = estimate(params, estimator_state, stream)
                params, opt_state = optimizer step                       # one per segment
            write one "train" row of metrics                # a chunk
            every measure_every updates: write one "measurement" row: measure(...)
        write one "evaluation" row of metrics: evaluate(params)
        save the params if they are the best so far; save a checkpoint

`experiments.common.session` says how it does this.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

import artbp
from experiments.common import chunks, devices, processes
from experiments.common.array_trees import hash_of_arrays
from experiments.common.loop_options import LoopOptions
from experiments.common.session import Measure, Session, TrainResult
from experiments.common.workdir import Workdir


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

    A workdir with a checkpoint is resumed; `open_workdir` has checked that it is the same run. The
    arguments must then be those of the first call; `params` and `carry` give shapes only. The
    arguments are not donated. A new run saves a checkpoint before its first chunk, so that a folder
    that cannot hold one is found out at once.

    Rows of `metrics.jsonl`, where "time" holds everything that may differ between equal runs:

        {"kind": "train", "epoch", "update", "time_step", "chunk", "loss", "bits", "segments",
         "mean_length", "max_length", "max_compensation", "max_weight", "max_gradient_norm",
         "mean_look_back", "max_look_back" (in windows, of estimators that look back),
         "skipped" (segments whose update was left out, where there are any),
         "time": {"elapsed_seconds", "steps_per_second"}}
        {"kind": "measurement", "epoch", "update", "time_step", <the values of measure>, "time"}
        {"kind": "evaluation", "epoch", "update", "time_step", "train_loss", "train_bits",
         <the values of evaluate>, "is_best" (with best_metric only), "time": {...}}
        {"kind": "roll_back", "epoch", "update", "time_step", "reason", "time"}

    "epoch" counts from 1; "loss" is the mean over the losses of the row in nats, "bits" the same
    over ln 2; gradient norms are taken before clipping; a value that is not finite is null.

    Args:
        estimator: any entry of `artbp.REGISTRY`, or one of the same type.
        optimizer: any optax optimiser that needs gradients, params and the loss value.
        stream, params, carry, rng_key: as for the estimator.
        workdir, options: see `open_workdir` and `LoopOptions`.
        evaluate: called with the params after each epoch. It must hold no reference to them
            afterwards, because the next chunk reuses their memory.
        measure: called with the params, the estimator's state, the stream and the number of
            updates; returns numbers and holds no reference either. It does not change the run.

    Raises:
        TrainingDivergedError: a loss, a gradient, an updated param or best_metric was not finite,
            or a loss was above max_loss. The bad update is not applied; the last checkpoint stays.
            With on_divergence "skip" or "roll_back": it happened too often.
        TrainingInterruptedError: Ctrl-C or SIGTERM; a checkpoint was saved first.
        CheckpointError: the workdir's checkpoint does not fit these arguments, none is left that is
            intact, or one could not be saved.
        ExperimentError: `evaluate` does not return best_metric.
    """
    mesh = None
    opt_state = optimizer.init(params)
    stream = jax.device_put(stream)
    data_hash = hash_of_arrays(stream)
    processes.check_same("text", data_hash)
    if options.num_devices > 1:
        mesh = devices.make_mesh(options.num_devices)
        estimator = artbp.data_parallel(estimator, mesh, devices.AXIS)
        params, opt_state = devices.on_every_device((params, opt_state), mesh)
        stream = devices.split_stream(stream, mesh)
    make_chunk = chunks.compiled_chunk if options.driver == "compiled" else chunks.host_driven_chunk
    skip = options.on_divergence == "skip"
    run_chunk = make_chunk(estimator, optimizer, options.segments_per_chunk, options.max_loss, skip)
    # A copy of every leaf: the state is donated, and neither the caller's arrays nor two leaves
    # that share one array (the carry and the initial carry) may be. A dtype makes weak types
    # strong: the second chunk would be compiled again otherwise.
    state = jax.tree.map(
        lambda leaf: jnp.array(leaf, dtype=jnp.result_type(leaf)),
        chunks.TrainState(
            params=params,
            opt_state=opt_state,
            estimator_state=estimator.init(params, carry, rng_key=rng_key),
            epoch=jnp.zeros((), jnp.int32),
            healthy=jnp.ones((), bool),
        ),
    )
    if mesh is not None:
        counters = devices.on_every_device((state.epoch, state.healthy), mesh)
        state = state._replace(epoch=counters[0], healthy=counters[1])
    return Session(options, workdir, run_chunk, stream, data_hash, evaluate, measure, state).run()
