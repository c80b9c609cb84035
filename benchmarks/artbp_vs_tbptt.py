"""What ARTBP costs: the same number of time steps as the fastest TBPTT, warm and from cold.

    python -m benchmarks.artbp_vs_tbptt [--time_steps 25000] [--hidden_size 256] [--rounds 3]
                                        [--cells "cells.lstm" "own function"] [--cold_rounds 1]
                                        [--contenders NAME ...] [--results FILE]

LSTM, batch 64, 50 symbols, readout and cross-entropy, float32, one SGD update per segment: ARTBP
(L0 = 50, α = 4) under each policy and unbiased TBPTT 50 (hazard 3/4) in each mode against TBPTT 50,
which is taken by an estimator and by the gradient of an unroll. All segments are run in one
program where the method allows it. Each contender lives in a process
of its own, with the persistent compilation cache off. Its first pass of the stream is the time
"with compilation", in `--cold_rounds` processes after each other; then its gradient is checked;
then warm passes of all contenders are interleaved. The ratios are to the fastest TBPTT with the
same cell.
"""

import argparse
import functools
import sys
from typing import Any

import jax

import artbp
from benchmarks import common
from benchmarks.model import (
    CELLS,
    Layer,
    character_loss,
    checked_error,
    make_layer,
    reference_gradient,
)
from benchmarks.walks import Walk, estimator_walk, scan, unbiased_walk, unroll_walk

BATCH = 64
_CHECKED_STEPS = 400
_COMPILED = "/jax/core/compile/backend_compile_duration"

MAKERS = {
    "artbp, dynamic": functools.partial(estimator_walk, "artbp", "dynamic"),
    "artbp, pow2": functools.partial(estimator_walk, "artbp", "pow2"),
    "artbp, exact": functools.partial(estimator_walk, "artbp", "exact"),
    "tbptt, dynamic": functools.partial(estimator_walk, "tbptt", "dynamic"),
    "tbptt, exact": functools.partial(estimator_walk, "tbptt", "exact"),
    "unbiased_tbptt, stored": functools.partial(unbiased_walk, "stored"),
    "unbiased_tbptt, reforward": functools.partial(unbiased_walk, "reforward"),
    "tbptt, lax.scan": functools.partial(unroll_walk, scan),
    "tbptt, fused_unroll": functools.partial(unroll_walk, artbp.fused_unroll),
}


def _serve(arguments: argparse.Namespace) -> None:
    """One contender, in its own process."""
    cell, name = arguments.cells[0], arguments.contender
    make = functools.partial(make_layer, character_loss, arguments.hidden_size)
    layer = make(arguments.time_steps, BATCH)
    walk: Walk = MAKERS[name](cell, layer)
    programs = 0

    def count(event: str, duration_secs: float, **details: object) -> None:
        nonlocal programs
        del duration_secs, details
        programs += event == _COMPILED

    def run() -> dict[str, Any]:
        nonlocal programs
        state = jax.block_until_ready(walk.prepare())
        programs, longest = 0, 0

        def go() -> Any:
            nonlocal longest
            params, longest = walk.run(state)
            return params

        seconds = common.timed(go)
        return {"seconds": seconds, "programs": programs, "longest": int(longest)}

    def check() -> float:
        short: Layer = make(min(_CHECKED_STEPS, arguments.time_steps), BATCH)
        gradient, gates = MAKERS[name](cell, short).frozen()
        return checked_error(name, gradient, reference_gradient(short, gates))

    jax.monitoring.register_event_duration_secs_listener(count)
    common.serve({"run": run, "check": check})


def measure(arguments: argparse.Namespace, cell: str) -> list[dict[str, Any]]:
    """The rows of one cell."""
    names = arguments.contenders or list(MAKERS)
    if cell != "cells.lstm":
        names = [name for name in names if "fused_unroll" not in name]
    sizes = {"--time_steps": arguments.time_steps, "--hidden_size": arguments.hidden_size}
    words = [str(word) for flag in sizes.items() for word in flag]

    def start(name: str) -> tuple[common.Worker, dict[str, Any]]:
        """A fresh process, and what its first pass took."""
        worker = common.Worker(
            "benchmarks.artbp_vs_tbptt", [*words, "--cells", cell, "--contender", name]
        )
        first = worker.ask("run")
        print(f"{cell}: {name}: {first['seconds']:.1f} s from cold", file=sys.stderr)
        return worker, first

    cold: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(arguments.cold_rounds - 1):
        for name in names:
            worker, first = start(name)
            cold[name].append(first["seconds"])
            worker.close()
    workers: dict[str, common.Worker] = {}
    counts, errors = {}, {}
    try:
        for name in names:
            workers[name], counts[name] = start(name)
            cold[name].append(counts[name]["seconds"])
        for name in names:
            errors[name] = workers[name].ask("check")
        runs = {
            name: lambda worker=worker: common.Seconds(worker.ask("run")["seconds"])
            for name, worker in workers.items()
        }
        warm = common.interleave(runs, arguments.rounds)
    finally:
        for worker in workers.values():
            worker.close()
    peers = [name for name in names if name.startswith("tbptt")]
    fastest = min(peers, key=lambda name: common.median_ms(warm, name))
    fastest_cold = min(peers, key=lambda name: common.median_ms(cold, name))
    return [
        {
            "cell": cell,
            "contender": name,
            "seconds": common.median_ms(warm, name) / 1e3,
            "ratio": common.median_ratio(warm, name, fastest),
            "cold_seconds": common.median_ms(cold, name) / 1e3,
            "cold_ratio": common.median_ratio(cold, name, fastest_cold),
            "programs": counts[name]["programs"],
            "longest": counts[name]["longest"],
            "error": errors[name],
        }
        for name in names
    ]


def main() -> None:
    """Prints the table of all cells."""
    parser = common.make_parser(__doc__, rounds=3)
    parser.add_argument("--time_steps", type=int, default=25_000)
    parser.add_argument("--hidden_size", type=int, default=256)
    parser.add_argument("--cells", nargs="+", choices=CELLS, default=list(CELLS))
    parser.add_argument("--contenders", nargs="+", choices=MAKERS, help="default: all")
    parser.add_argument("--cold_rounds", type=int, default=1, help="fresh processes of each")
    parser.add_argument("--contender", choices=MAKERS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.contender:
        _serve(arguments)
        return
    rows = [row for cell in arguments.cells for row in measure(arguments, cell)]
    columns = {
        "cell": "cell",
        "contender": "contender",
        "seconds": "s",
        "ratio": "÷ fastest TBPTT",
        "cold_seconds": "s with compilation",
        "cold_ratio": "÷ fastest TBPTT",
        "programs": "programs",
        "longest": "longest segment",
        "error": "error",
    }
    common.report(rows, columns, arguments.results)


if __name__ == "__main__":
    main()
