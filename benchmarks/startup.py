"""From the start of the process to the first finished training update of the ptb experiment.

    python -m benchmarks.startup [--arm ARM] [--segments_per_chunk 1] [--rounds 5]
                                 [--results FILE]

The experiment's own code on its generated text (LSTM 128, batch 64), each time in a fresh process:
first with an empty persistent compilation cache (cold), then with what that run left in it (warm).

    import   the interpreter, JAX and the experiment
    build    text, model, optimiser, parameters and the state of the estimator
    compile  until the first call of the training program returns: trace, compile or load
    chunk    until what it computes is there
"""

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any

from benchmarks import common

PHASES = ("import", "build", "compile", "chunk")


def first_update(started: float, arm: str, segments_per_chunk: int) -> dict[str, Any]:
    """Runs the first chunk in this process, started at the time `started`."""
    import jax
    import jax.numpy as jnp

    import artbp
    from experiments.common import chunks
    from experiments.common.cli import enable_compilation_cache
    from experiments.ptb.config import default_config
    from experiments.ptb.run import prepare

    marks = [started, time.time()]
    enable_compilation_cache()
    config = default_config()
    config.arm = arm
    config.data.source = "generated"
    prepared = prepare(config)
    model, options = prepared.model, prepared.options
    init_key, boundary_key = jax.random.split(jax.random.key(config.seed))
    params = model.init(init_key)
    carry = model.initial_carry(params, config.batch)
    state = chunks.TrainState(
        params=params,
        opt_state=prepared.optimizer.init(params),
        estimator_state=prepared.estimator.init(params, carry, rng_key=boundary_key),
        epoch=jnp.zeros((), jnp.int32),
        healthy=jnp.ones((), bool),
    )
    stream = jax.device_put(artbp.Stream(prepared.xs, prepared.targets))
    run_chunk = chunks.compiled_chunk(
        prepared.estimator,
        prepared.optimizer,
        segments_per_chunk=segments_per_chunk,
        max_loss=options.max_loss,
    )
    jax.block_until_ready((state, stream))
    marks.append(time.time())
    result = run_chunk(state, stream, 1)
    marks.append(time.time())
    state, chunk = jax.block_until_ready(result)
    marks.append(time.time())
    records = chunks.fetch(chunk)
    assert records is not None
    assert records.healthy.all()
    seconds = [after - before for before, after in itertools.pairwise(marks)]
    return {
        **dict(zip(PHASES, seconds, strict=True)),
        "total": marks[-1] - started,
        "gradient_norm": float(records.gradient_norm[0]),
    }


def fresh_process(arguments: argparse.Namespace, cache: str) -> dict[str, Any]:
    """`first_update` in a process of its own, with `cache` as its compilation cache."""
    command = [sys.executable, "-m", "benchmarks.startup", "--arm", arguments.arm]
    command += ["--segments_per_chunk", str(arguments.segments_per_chunk)]
    command += ["--started", repr(time.time())]
    process = subprocess.run(
        command,
        env={
            **os.environ,
            "JAX_ENABLE_COMPILATION_CACHE": "true",
            "JAX_COMPILATION_CACHE_DIR": cache,
        },
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(process.stdout.splitlines()[-1])


def main() -> None:
    """Runs cold and warm in turn and prints the table."""
    parser = common.make_parser(__doc__, rounds=5)
    parser.add_argument("--arm", default="artbp(50, alpha=4)", help="or 'tbptt(50)', ...")
    parser.add_argument("--segments_per_chunk", type=int, default=1)
    parser.add_argument("--started", type=float, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.started:
        print(
            json.dumps(first_update(arguments.started, arguments.arm, arguments.segments_per_chunk))
        )
        return

    runs: dict[str, list[dict[str, Any]]] = {"cold": [], "warm": []}
    for _ in range(arguments.rounds):
        with tempfile.TemporaryDirectory() as cache:
            for kind in runs:
                runs[kind].append(fresh_process(arguments, cache))
    norms = {run["gradient_norm"] for kind in runs.values() for run in kind}
    if len(norms) > 1:
        raise RuntimeError(f"cold and warm runs disagree about the first gradient: {norms}")

    totals = {kind: [run["total"] for run in runs[kind]] for kind in runs}
    rows = []
    for kind in runs:
        medians = {
            phase: statistics.median(run[phase] for run in runs[kind])
            for phase in (*PHASES, "total")
        }
        ratio = common.median_ratio(totals, kind, "cold")
        rows.append({"cache": kind, **medians, "ratio": ratio})
    columns = {"cache": "cache", **{phase: f"{phase}, s" for phase in PHASES}}
    common.report(rows, {**columns, "total": "total, s", "ratio": "÷ cold"}, arguments.results)


if __name__ == "__main__":
    main()
