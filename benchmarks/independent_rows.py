"""Many keys in one program: in lockstep under `jax.vmap`, or each row at its own pace.

    python -m benchmarks.independent_rows [--keys 1,8,64,128,256] [--repeats 7] [--results FILE]

What limits it: on so small a model an operation costs as much to start as to compute, so one key
leaves most of the machine idle. In lockstep every row waits for the longest segment among them,
which lies further above the mean the more rows there are. Rows at their own pace are at work in
0.45 of the steps, whatever their number; what limits them is the arithmetic of one core.

Influence balancing (23 states, float64), ARTBP with L0 = 16 and α = 4, an update after each
segment, whole trainings in one compiled program. The programs are timed in turn, the first turn is
not counted, and the table gives medians.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp

import artbp
from experiments.influence_balancing import system

LAW = artbp.truncation.polynomial(16, 4)
BLOCK_SIZE = 16
ETA_0 = 1e-3

Training = Callable[[jax.Array, int], jax.Array]


def descend(theta: jax.Array, step: jax.Array, grads: dict) -> jax.Array:
    """Stochastic gradient descent at the rate of the experiment."""
    return theta - ETA_0 / jnp.sqrt(1.0 + step) * grads["theta"]


def single_key(rng_keys: jax.Array, num_steps: int) -> jax.Array:
    """One key: the `dynamic` kernel without `vmap`."""
    (rng_key,) = rng_keys
    estimator = artbp.artbp(system.cell, system.loss_fn, LAW, policy="dynamic")
    stream = artbp.Stream(None, num_steps=num_steps)

    def one_segment(loop):
        theta, state, step = loop
        grads, state, info = estimator.estimate({"theta": theta}, state, stream)
        step = step + info.length
        return descend(theta, step, grads), state, step

    theta = jnp.float64(0.5)
    state = estimator.init({"theta": theta}, system.initial_carry(), rng_key=rng_key)
    loop = (theta, state, jnp.int32(0))
    return jax.lax.while_loop(lambda loop: loop[2] < num_steps, one_segment, loop)[0][None]


def lockstep(rng_keys: jax.Array, num_steps: int) -> jax.Array:
    """All keys under `vmap`; a key that is done is frozen."""
    estimator = artbp.artbp(system.cell, system.loss_fn, LAW, policy="dynamic")
    stream = artbp.Stream(None, num_steps=num_steps)
    estimate = jax.vmap(estimator.estimate, in_axes=(0, 0, None))

    def one_segment(loop):
        theta, state, step = loop
        running = step < num_steps
        grads, state, info = estimate({"theta": theta}, state, stream)
        step = step + jnp.where(running, info.length, 0)
        return jnp.where(running, descend(theta, step, grads), theta), state, step

    theta = jnp.full((len(rng_keys),), 0.5)
    init = jax.vmap(
        lambda rng_key: estimator.init({"theta": theta[0]}, system.initial_carry(), rng_key=rng_key)
    )
    loop = (theta, init(rng_keys), jnp.zeros((len(rng_keys),), jnp.int32))
    return jax.lax.while_loop(lambda loop: jnp.any(loop[2] < num_steps), one_segment, loop)[0]


def independent(rng_keys: jax.Array, num_steps: int) -> jax.Array:
    """All keys, each at its own pace."""

    def update(params, step, grads, info):
        step = step + info.length
        return {"theta": descend(params["theta"], step, grads)}, step

    rows = artbp.independent_rows(
        system.cell,
        system.loss_fn,
        LAW,
        artbp.by_row(update),
        lambda params, step: step < num_steps,
        block_size=BLOCK_SIZE,
    )
    params = {"theta": jnp.full((len(rng_keys),), 0.5)}
    step = jnp.zeros((len(rng_keys),), jnp.int32)
    state = rows.init(system.initial_carry(), rng_keys)
    stream = artbp.Stream(None, num_steps=num_steps)
    return rows.run(params, step, state, stream)[0]["theta"]


def measure(num_keys: list[int], repeats: int) -> list[dict[str, object]]:
    """Times all programs in turn; checks that those of the same keys agree."""
    root = jax.random.key(0)
    programs = []
    for keys in [1, *num_keys]:
        trainings: list[Training] = [lockstep, independent] if programs else [single_key]
        num_steps = 100_000 if keys <= 8 else 20_000
        for training in trainings:
            rng_keys = jax.vmap(jax.random.fold_in, (None, 0))(root, jnp.arange(keys))
            run = jax.jit(training, static_argnums=1).lower(rng_keys, num_steps).compile()
            programs.append((training.__name__, keys, num_steps, run, rng_keys))
    seconds: list[list[float]] = [[] for _ in programs]
    thetas = {}
    for _ in range(repeats + 1):
        for times, (_, keys, num_steps, run, rng_keys) in zip(seconds, programs, strict=True):
            start = time.perf_counter()
            theta = jax.block_until_ready(run(rng_keys))
            times.append(time.perf_counter() - start)
            expected = thetas.setdefault((keys, num_steps), theta)
            assert jnp.allclose(theta, expected, rtol=1e-9), "the programs disagree"
    rates = [
        keys * num_steps / statistics.median(times[1:])
        for times, (_, keys, num_steps, _, _) in zip(seconds, programs, strict=True)
    ]
    return [
        {
            "program": name,
            "keys": keys,
            "time_steps_per_second": round(rate),
            "ratio_to_single_key": round(rate / rates[0], 2),
        }
        for rate, (name, keys, _, _, _) in zip(rates, programs, strict=True)
    ]


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--keys", default="1,8,64,128,256", help="numbers of keys")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--results", help="JSON file to write the rows to")
    arguments = parser.parse_args()
    with jax.enable_x64(True):
        rows = measure([int(keys) for keys in arguments.keys.split(",")], arguments.repeats)
    print("| program | keys | time steps per second | ÷ single_key |")
    print("|---|---|---|---|")
    for row in rows:
        rate, ratio = row["time_steps_per_second"], row["ratio_to_single_key"]
        print(f"| {row['program']} | {row['keys']} | {rate:,} | {ratio:.2f} |")
    if arguments.results:
        machine = f"{platform.machine()}, {os.cpu_count()} cores, JAX {jax.__version__}"
        with open(arguments.results, "w", encoding="utf-8") as file:
            json.dump({"machine": machine, "rows": rows}, file, indent=2)
            file.write("\n")


if __name__ == "__main__":
    main()
