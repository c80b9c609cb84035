"""What a new segment length costs: one program for all lengths against one program per length.

    python -m benchmarks.variable_lengths [--hidden_size 128] [--segments 300] [--results FILE]

Runs ARTBP (L0 = 50, α = 4) over the same segments under each policy, each from a cold start in a
process of its own with the persistent compilation cache off, and prints time and programs. What
limits them: `dynamic` the arithmetic of the steps; `exact` the compiler, once per length.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time

POLICIES = ("dynamic", "pow2", "exact")


def measure(policy: str, hidden_size: int, segments: int) -> dict[str, object]:
    """Runs one policy in this process, from the first trace on."""
    import jax
    import jax.numpy as jnp
    import optax

    import artbp
    from artbp import cells

    compiled: list[str] = []

    def listener(event: str, duration: float, **kwargs: object) -> None:
        del duration
        if event == "/jax/core/compile/backend_compile_duration":
            compiled.append(str(kwargs.get("fun_name", "")))

    jax.monitoring.register_event_duration_secs_listener(listener)

    symbols, batch, num_steps = 50, 64, 100_000
    keys = jax.random.split(jax.random.key(0), 4)
    params = {
        "cell": cells.lstm.init(keys[0], symbols, hidden_size),
        "readout": 0.05 * jax.random.normal(keys[1], (hidden_size, symbols)),
    }

    def cell(params, carry, x):
        return cells.lstm(params["cell"], carry, x)

    def loss_fn(params, y, target):
        return optax.softmax_cross_entropy_with_integer_labels(y @ params["readout"], target)

    text = jax.random.randint(keys[2], (num_steps + 1, batch), 0, symbols)
    stream = jax.device_put(artbp.Stream(text[:-1], text[1:]))
    law = artbp.truncation.polynomial(50, 4)
    estimator = artbp.artbp(cell, loss_fn, law, policy=policy, normalizer=50.0 * batch)
    carry = cells.lstm.initial_carry(params["cell"], batch)
    state = estimator.init(params, carry, rng_key=keys[3])
    jax.block_until_ready((stream, state))

    estimate = estimator.estimate
    if policy == "dynamic":
        estimate = jax.jit(estimate, donate_argnums=1)

    @jax.jit
    def update(params, grads):
        return jax.tree.map(lambda p, g: p - 0.1 * g, params, grads)

    compiled.clear()
    lengths = []
    start = time.perf_counter()
    for _ in range(segments):
        grads, state, info = estimate(params, state, stream)
        params = update(params, grads)
        lengths.append(info.length)
    jax.block_until_ready(params)
    seconds = time.perf_counter() - start
    lengths = [int(length) for length in lengths]
    kernels = {"estimate", "_forward", "_backward"}
    return {
        "policy": policy,
        "seconds": round(seconds, 1),
        "segment_programs": sum(any(k in name for k in kernels) for name in compiled),
        "segments": segments,
        "distinct_lengths": len(set(lengths)),
        "longest": max(lengths),
        "time_steps": sum(lengths),
        "mean_loss_of_a_step": float(info.loss_sum / jnp.maximum(info.num_steps, 1)),
    }


def main() -> None:
    """Runs each policy in its own process and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--hidden_size", type=int, default=128)
    parser.add_argument("--segments", type=int, default=300)
    parser.add_argument("--results", help="JSON file to write the rows to")
    parser.add_argument("--policy", choices=POLICIES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.policy:
        print(json.dumps(measure(arguments.policy, arguments.hidden_size, arguments.segments)))
        return

    rows = []
    for policy in POLICIES:
        sizes = {"--hidden_size": arguments.hidden_size, "--segments": arguments.segments}
        command = [sys.executable, "-m", "benchmarks.variable_lengths", "--policy", policy]
        command += [str(word) for flag in sizes.items() for word in flag]
        process = subprocess.run(
            command,
            env={**os.environ, "JAX_ENABLE_COMPILATION_CACHE": "false"},
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        rows.append(json.loads(process.stdout.splitlines()[-1]))
        print(f"{policy}: {rows[-1]['seconds']} s", file=sys.stderr, flush=True)

    slowest = rows[-1]["seconds"]
    print("| policy | seconds | ÷ exact | segment programs | distinct lengths | longest |")
    print("|---|---|---|---|---|---|")
    for row in rows:
        print(
            f"| {row['policy']} | {row['seconds']} | {row['seconds'] / slowest:.2f} "
            f"| {row['segment_programs']} | {row['distinct_lengths']} | {row['longest']} |"
        )
    if arguments.results:
        import jax

        machine = f"{platform.machine()}, {os.cpu_count()} cores, JAX {jax.__version__}"
        with open(arguments.results, "w", encoding="utf-8") as file:
            json.dump({"machine": machine, "rows": rows}, file, indent=2)
            file.write("\n")


if __name__ == "__main__":
    main()
