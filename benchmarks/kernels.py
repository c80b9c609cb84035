"""Forward and backward of one LSTM layer: artbp against autodiff and other libraries.

    python -m benchmarks.kernels [--task layer|character] [--hidden_sizes 128 256 1000]
                                 [--only WORD ...] [--rounds 15] [--results FILE]

The gradient with respect to all parameters over 50 steps, batch 64, 50 symbols, float32. `layer`:
of Σ ys · cotangent; `character`: with a readout and cross-entropy. "the products alone" does the
matrix products of the cell one after another and next to nothing else: the floor for a program made
of these products on one device. The other libraries are in the extra `benchmarks`.
"""

import argparse
import functools
import os
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

import artbp
from artbp import cells
from benchmarks import common
from benchmarks.model import (
    CELLS,
    Layer,
    character_loss,
    checked_error,
    initial_carry,
    layer_loss,
    make_layer,
    next_gradient,
    reference_gradient,
)
from benchmarks.peers import Contender, autodiff, one_hot, peers

NUM_STEPS, BATCH = 50, 64
LOSSES = {"layer": layer_loss, "character": character_loss}
SCAN = "lax.scan of cells.lstm"
BOUND = "the products alone"
DEVICES = 2
SPLIT = f"artbp.tbptt, dynamic, {DEVICES} virtual devices"


def contenders(layer: Layer, threads: int) -> dict[str, Contender]:
    """All of this process."""
    cell = layer.params["cell"]
    return {
        SCAN: autodiff(layer, _scan, cell, layer.symbols),
        f"{SCAN}, one-hot": autodiff(layer, _scan, cell, one_hot(layer)),
        **peers(layer, threads),
        "artbp.fused_unroll": autodiff(layer, _fused_unroll, cell, layer.symbols),
        "artbp.tbptt, dynamic": _estimator(layer, "cells.lstm", "dynamic"),
        "artbp.tbptt, exact": _estimator(layer, "cells.lstm", "exact"),
        "artbp.tbptt, dynamic, own function": _estimator(layer, "own function", "dynamic"),
        "artbp.tbptt, exact, own function": _estimator(layer, "own function", "exact"),
    }


def _scan(params: Any, xs: Any) -> jax.Array:
    step = functools.partial(cells.lstm, params["cell"])
    return jax.lax.scan(step, initial_carry(params, xs.shape[1]), xs)[1]


def _fused_unroll(params: Any, xs: Any) -> jax.Array:
    carry = initial_carry(params, xs.shape[1])
    return artbp.fused_unroll(CELLS["cells.lstm"], params, carry, xs)[1]


def _estimator(layer: Layer, cell: str, policy: artbp.unrolls.Policy) -> Contender:
    """One segment that is the whole stream: each call starts from the initial carry."""
    num_steps, batch = layer.symbols.shape
    estimator = artbp.tbptt(CELLS[cell], layer.loss_fn, truncation_length=num_steps, policy=policy)
    carry = initial_carry(layer.params, batch)
    run = next_gradient(estimator, layer, layer.params, carry, jit=policy == "dynamic")
    return Contender(run, lambda grads: grads)


def _split_estimator(layer: Layer) -> Contender:
    """The dynamic estimator with the rows of the batch split over the devices."""
    num_steps, batch = layer.symbols.shape
    mesh = jax.make_mesh((DEVICES,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    estimator = artbp.tbptt(
        CELLS["cells.lstm"], layer.loss_fn, truncation_length=num_steps, policy="dynamic"
    )
    params, rows = layer.params, PartitionSpec(None, "data")
    one = estimator.init(params, initial_carry(params, batch // DEVICES), rng_key=jax.random.key(0))
    # Each device has a state of its own, and its rows of the stream.
    state = jax.tree.map(lambda leaf: jnp.stack([leaf] * DEVICES), one)

    def estimate(params: Any, states: Any, stream: artbp.Stream) -> tuple[Any, Any]:
        state = jax.tree.map(lambda leaf: leaf[0], states)
        grads, state, _ = estimator.estimate(params, state, stream)
        return jax.lax.psum(grads, "data"), jax.tree.map(lambda leaf: leaf[None], state)

    specs = (PartitionSpec(), PartitionSpec("data"), rows)
    split = jax.shard_map(estimate, mesh=mesh, in_specs=specs, out_specs=specs[:2], check_vma=False)
    step = jax.jit(split, donate_argnums=1)
    params, state, stream = (
        jax.device_put(tree, jax.NamedSharding(mesh, spec))
        for tree, spec in zip((params, state, layer.stream), specs, strict=True)
    )

    def run() -> Any:
        nonlocal state
        grads, state = step(params, state, stream)
        return grads

    return Contender(run, lambda grads: grads)


def _products(layer: Layer) -> Any:
    """T skinny products forward, T back, and the weight gradient as one product."""
    recurrent = layer.params["cell"]["recurrent"]
    num_steps, batch = layer.symbols.shape
    hidden_size = recurrent.shape[0]

    @jax.jit
    def run(hidden: jax.Array, recurrent: jax.Array) -> jax.Array:
        def forward(hidden: jax.Array, _: None) -> tuple[jax.Array, jax.Array]:
            gates = hidden @ recurrent
            return gates.reshape(batch, 4, hidden_size).sum(1) / 4, hidden

        def backward(gates: jax.Array, _: None) -> tuple[jax.Array, jax.Array]:
            return jnp.tile(gates @ recurrent.T, (1, 4)) / 4, gates

        last, hiddens = jax.lax.scan(forward, hidden, length=num_steps)
        _, gates = jax.lax.scan(backward, jnp.tile(last, (1, 4)), length=num_steps)
        rows = num_steps * batch
        return hiddens.reshape(rows, -1).T @ gates.reshape(rows, -1)

    hidden = jnp.full((batch, hidden_size), 1e-3)
    return lambda: run(hidden, recurrent)


def measure(arguments: argparse.Namespace, hidden_size: int) -> list[dict[str, Any]]:
    """The rows of one hidden size."""
    layer = make_layer(LOSSES[arguments.task], hidden_size, NUM_STEPS, BATCH)
    reference = reference_gradient(layer)
    chosen = {
        name: contender
        for name, contender in contenders(layer, arguments.threads).items()
        if name == SCAN or all(word in name for word in arguments.only)
    }
    errors = {
        name: checked_error(name, contender.gradient(contender.run()), reference)
        for name, contender in chosen.items()
    }
    words = ["--split", str(hidden_size), "--task", arguments.task]
    worker = common.Worker("benchmarks.kernels", words, JAX_NUM_CPU_DEVICES=str(DEVICES))
    try:
        errors[SPLIT] = worker.ask("check")
        runs = {name: contender.run for name, contender in chosen.items()}
        runs[SPLIT] = lambda: common.Seconds(worker.ask("run"))
        runs[BOUND] = _products(layer)
        seconds = common.interleave(runs, arguments.rounds)
    finally:
        worker.close()
    torch = "torch.nn.LSTM"
    return [
        {
            "hidden_size": hidden_size,
            "contender": name,
            "ms": common.median_ms(seconds, name),
            "to_scan": common.median_ratio(seconds, name, SCAN),
            "to_torch": common.median_ratio(seconds, name, torch) if torch in runs else None,
            "to_bound": common.median_ratio(seconds, name, BOUND),
            "error": errors.get(name),
        }
        for name in runs
    ]


def _serve_split(arguments: argparse.Namespace) -> None:
    layer = make_layer(LOSSES[arguments.task], arguments.split, NUM_STEPS, BATCH)
    contender = _split_estimator(layer)

    def check() -> float:
        gradient = contender.gradient(contender.run())
        return checked_error(SPLIT, gradient, reference_gradient(layer))

    common.serve({"check": check, "run": lambda: common.timed(contender.run)})


def main() -> None:
    """Prints the table of all hidden sizes."""
    parser = common.make_parser(__doc__, rounds=15)
    parser.add_argument("--task", choices=LOSSES, default="layer")
    parser.add_argument("--hidden_sizes", type=int, nargs="+", default=[128, 256, 1000])
    parser.add_argument("--only", nargs="+", default=[], help="contenders with all these words")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="threads of torch")
    parser.add_argument("--split", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.split:
        _serve_split(arguments)
        return
    rows = [row for size in arguments.hidden_sizes for row in measure(arguments, size)]
    columns = {
        "hidden_size": "hidden",
        "contender": "contender",
        "ms": "ms",
        "to_scan": "÷ scan",
        "to_torch": "÷ torch",
        "to_bound": "÷ products",
        "error": "error",
    }
    common.report(rows, columns, arguments.results)


if __name__ == "__main__":
    main()
