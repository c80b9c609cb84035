"""What watching a training costs: `artbp.diagnostics.shadow` every 100 updates.

    python -m benchmarks.shadow [--rows 8] [--window 256] [--history 256] [--rounds 7]
                                [--results FILE]
    python -m benchmarks.shadow --run DIR      the share of the time of a finished experiments.ptb

What limits it: the steps of the passes one after another where the watched rows are few, and a
product of matrices for the weight gradient of each pattern of gates. The forward passes over
history and window are shared by all patterns.

LSTM 128, batch 64, 50 symbols, readout and cross-entropy, float32, ARTBP (L0 = 50, α = 4), Adam:
100 updates in one program, alone, and followed by one measurement (bias of TBPTT 10, 50 and 200,
noise of 8 draws of boundaries, error of the carry). The params after both are compared bit for bit.
"""

import json
import pathlib
from typing import Any

import jax
import numpy as np
import optax

import artbp
from artbp.diagnostics import shadow
from benchmarks import common
from benchmarks.model import CELLS, character_loss, initial_carry, make_layer

HIDDEN_SIZE, BATCH, MEAN_LENGTH, UPDATES = 128, 64, 50, 100
TRUNCATION_LENGTHS = (10, 50, 200)
NUM_STEPS = 20_000


def measure(rows: int, window: int, history: int, rounds: int) -> list[dict[str, Any]]:
    """Times both in turn."""
    layer = make_layer(character_loss, HIDDEN_SIZE, NUM_STEPS, BATCH)
    law = artbp.truncation.polynomial(MEAN_LENGTH, 4)
    cell, optimizer = CELLS["cells.lstm"], optax.adam(1e-3)
    estimator = artbp.artbp(cell, layer.loss_fn, law, normalizer=MEAN_LENGTH * BATCH)

    stream = layer.stream

    @jax.jit
    def train(params: Any, opt_state: Any, state: Any, stream: artbp.Stream) -> Any:
        def update(_: int, loop: Any) -> Any:
            params, opt_state, state = loop
            grads, state, _ = estimator.estimate(params, state, stream)
            updates, opt_state = optimizer.update(grads, opt_state)
            return optax.apply_updates(params, updates), opt_state, state

        return jax.lax.fori_loop(0, UPDATES, update, (params, opt_state, state))

    watch = jax.jit(
        shadow(
            cell,
            layer.loss_fn,
            window_length=window,
            truncation_lengths=[k for k in TRUNCATION_LENGTHS if k < window],
            law=law,
            history_length=history,
            num_rows=rows,
        )
    )
    carry = initial_carry(layer.params, BATCH)
    state = estimator.init(layer.params, carry, rng_key=jax.random.key(0))
    start = (layer.params, optimizer.init(layer.params), state)

    def alone() -> Any:
        return train(*start, stream)

    def watched() -> Any:
        params, opt_state, state = train(*start, stream)
        metrics = watch(params, state, stream, jax.random.key(1))
        return (params, opt_state, state), metrics

    (params, _, _), metrics = watched()
    jax.tree.map(np.testing.assert_array_equal, params, alone()[0])
    print({name: f"{float(value):.3g}" for name, value in metrics.items()})
    seconds = common.interleave({"alone": alone, "watched": watched}, rounds)
    ratio = common.median_ratio(seconds, "watched", "alone")
    return [
        {
            "rows": rows,
            "window": window,
            "history": history,
            "alone_ms": common.median_ms(seconds, "alone"),
            "watched_ms": common.median_ms(seconds, "watched"),
            "ratio": ratio,
            "time_steps": int(alone()[2].position),
        }
    ]


def share_of_a_run(folder: pathlib.Path) -> float:
    """Time in measurements over time in training, from the clock in the rows of a run.

    By medians, so that compilation, which is in the first of each, does not count.
    """
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    seconds: dict[str, list[float]] = {"train": [], "measurement": [], "evaluation": []}
    before = 0.0
    for row in map(json.loads, lines):
        now = row["time"]["elapsed_seconds"]
        seconds[row["kind"]].append(now - before)
        before = now
    measured, trained = (
        len(seconds[kind]) * float(np.median(seconds[kind])) for kind in ("measurement", "train")
    )
    return measured / trained


def main() -> None:
    """Prints the table."""
    parser = common.make_parser(__doc__)
    parser.add_argument("--rows", type=int, default=8, help="rows of the batch that are watched")
    parser.add_argument("--window", type=int, default=256, help="time steps")
    parser.add_argument("--history", type=int, default=256, help="time steps; 0 for none")
    parser.add_argument("--run", type=pathlib.Path, help="folder of a run with measurements")
    arguments = parser.parse_args()
    if arguments.run is not None:
        print(f"measurements took {share_of_a_run(arguments.run):.1%} of the time of training")
        return
    rows = measure(arguments.rows, arguments.window, arguments.history, arguments.rounds)
    columns = {
        "rows": "rows watched",
        "window": "window",
        "history": "history",
        "time_steps": "time steps in 100 updates",
        "alone_ms": "100 updates, ms",
        "watched_ms": "and one measurement, ms",
        "ratio": "ratio",
    }
    common.report(rows, columns, arguments.results)


if __name__ == "__main__":
    main()
