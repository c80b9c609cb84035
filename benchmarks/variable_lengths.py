"""What a new segment length costs: one program for all lengths against one program per length.

    python -m benchmarks.variable_lengths [--hidden_size 128] [--segments 300] [--results FILE]

Runs ARTBP (L0 = 50, α = 4) over the same segments under each policy, each from a cold start in a
process of its own with the persistent compilation cache off, and prints time and programs. What
limits them: `dynamic` the arithmetic of the steps; `exact` the compiler, once per length.
"""

import argparse
from typing import Any, get_args

import jax

import artbp
from artbp.unrolls import Policy
from benchmarks import common
from benchmarks.model import CELLS, character_loss, initial_carry, make_layer


def measure(policy: Policy, hidden_size: int, segments: int) -> dict[str, Any]:
    """Runs one policy in this process, from the first trace on."""
    compiled: list[str] = []

    def listener(event: str, duration_secs: float, **kwargs: object) -> None:
        del duration_secs
        if event == "/jax/core/compile/backend_compile_duration":
            compiled.append(str(kwargs.get("fun_name", "")))

    jax.monitoring.register_event_duration_secs_listener(listener)

    batch = 64
    layer = make_layer(character_loss, hidden_size, 100_000, batch)
    params, stream = jax.device_put(layer.params), layer.stream
    law = artbp.truncation.polynomial(50, 4)
    estimator = artbp.artbp(
        CELLS["cells.lstm"], character_loss, law, policy=policy, normalizer=50.0 * batch
    )
    rng_key = jax.random.split(jax.random.key(0), 4)[3]
    state = estimator.init(params, initial_carry(params, batch), rng_key=rng_key)
    jax.block_until_ready((stream, state))

    estimate = estimator.estimate
    if policy == "dynamic":
        estimate = jax.jit(estimate, donate_argnums=1)

    @jax.jit
    def update(params, grads):
        return jax.tree.map(lambda p, g: p - 0.1 * g, params, grads)

    def run() -> Any:
        nonlocal params, state
        for _ in range(segments):
            grads, state, info = estimate(params, state, stream)
            params = update(params, grads)
            lengths.append(info.length)
        return params

    lengths: list[Any] = []
    compiled.clear()
    seconds = common.timed(run)
    numbers = [int(length) for length in lengths]
    kernels = {"estimate", "_forward", "_backward"}
    return {
        "policy": policy,
        "seconds": seconds,
        "segment_programs": sum(any(k in name for k in kernels) for name in compiled),
        "segments": segments,
        "distinct_lengths": len(set(numbers)),
        "longest": max(numbers),
        "time_steps": sum(numbers),
    }


def main() -> None:
    """Runs each policy in its own process and prints the table."""
    parser = common.make_parser(__doc__)
    parser.add_argument("--hidden_size", type=int, default=128)
    parser.add_argument("--segments", type=int, default=300)
    parser.add_argument("--policy", choices=get_args(Policy), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.policy:
        sizes = arguments.hidden_size, arguments.segments
        common.serve({"run": lambda: measure(arguments.policy, *sizes)})
        return

    rows = []
    for policy in get_args(Policy):
        words = ["--hidden_size", str(arguments.hidden_size), "--segments", str(arguments.segments)]
        worker = common.Worker("benchmarks.variable_lengths", [*words, "--policy", policy])
        rows.append(worker.ask("run"))
        worker.close()
    exact = next(row["seconds"] for row in rows if row["policy"] == "exact")
    rows = [{**row, "ratio": row["seconds"] / exact} for row in rows]
    columns = {
        "policy": "policy",
        "seconds": "seconds",
        "ratio": "÷ exact",
        "segment_programs": "programs for segments",
        "distinct_lengths": "distinct lengths",
        "longest": "longest",
    }
    common.report(rows, columns, arguments.results)


if __name__ == "__main__":
    main()
