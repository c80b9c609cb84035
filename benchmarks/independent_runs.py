"""Many keys in one program: in lockstep under `jax.vmap`, or each row at its own pace.

    python -m benchmarks.independent_runs [--keys 8 64 128 256] [--rounds 7] [--results FILE]

What limits it: on so small a model an operation costs as much to start as to compute, so one key
leaves most of the machine idle. In lockstep every row waits for the longest segment among them,
which lies further above the mean the more rows there are. Rows at their own pace are at work in
0.45 of the steps, whatever their number; what limits them is the arithmetic of one core. Rows do
not mix, so that half of them can run on each of two virtual CPU devices (`split`).

Influence balancing (23 states, float64), ARTBP with L0 = 16 and α = 4, an update after each
segment, whole trainings in one compiled program. No program is timed before its parameters have
been compared with those that another one reaches from the same keys.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp

import artbp
from benchmarks import common
from experiments.influence_balancing import system

LAW = artbp.truncation.polynomial(16, 4)
BLOCK_SIZE = 16
ETA_0 = 1e-3
DEVICES = 2


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

    rows = artbp.contrib.independent_runs(
        system.cell,
        system.loss_fn,
        LAW,
        artbp.contrib.by_run(update),
        lambda params, step: step < num_steps,
        block_size=BLOCK_SIZE,
    )
    params = {"theta": jnp.full((len(rng_keys),), 0.5)}
    step = jnp.zeros((len(rng_keys),), jnp.int32)
    state = rows.init(system.initial_carry(), rng_keys)
    stream = artbp.Stream(None, num_steps=num_steps)
    return rows.run(params, step, state, stream)[0]["theta"]


def split(rng_keys: jax.Array, num_steps: int) -> jax.Array:
    """As `independent`, with an equal share of the keys on each of `DEVICES` virtual devices."""
    mesh = jax.make_mesh((DEVICES,), ("keys",), axis_types=(jax.sharding.AxisType.Auto,))
    shared = jax.sharding.PartitionSpec("keys")
    share = functools.partial(independent, num_steps=num_steps)
    # Devices draw new plans of lengths when they need them: nothing is the same on all.
    return jax.shard_map(share, mesh=mesh, in_specs=shared, out_specs=shared, check_vma=False)(
        rng_keys
    )


def measure(num_keys: list[int], rounds: int) -> list[dict[str, Any]]:
    """Times all programs in turn."""
    cases = [(single_key, 1), (independent, 1)]
    cases += [(training, keys) for keys in num_keys for training in (lockstep, independent, split)]
    contenders, thetas = {}, {}
    for training, keys in cases:
        name, num_steps = f"{training.__name__}, {keys}", _num_steps(keys)
        rng_keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(0), jnp.arange(keys))
        run = jax.jit(training, static_argnums=1).lower(rng_keys, num_steps).compile()
        contenders[name] = functools.partial(run, rng_keys)
        theta = run(rng_keys)
        expected = thetas.setdefault(num_steps, theta)
        shared = min(len(theta), len(expected))  # the first keys are the same
        if not jnp.allclose(theta[:shared], expected[:shared], rtol=1e-9):
            raise RuntimeError(f"{name}: other parameters than its peers reach from these keys")
    seconds = common.interleave(contenders, rounds)
    single = next(iter(contenders))
    rows = []
    for name, (training, keys) in zip(contenders, cases, strict=True):
        time_steps = keys * _num_steps(keys)
        gain = time_steps / _num_steps(1) / common.median_ratio(seconds, name, single)
        rows.append(
            {
                "program": training.__name__,
                "keys": keys,
                "time_steps_per_second": 1e3 * time_steps / common.median_ms(seconds, name),
                "ratio": gain,
            }
        )
    return rows


def _num_steps(keys: int) -> int:
    """Time steps of each training: enough for a program to take a tenth of a second."""
    return 100_000 if keys <= 8 else 20_000


def main() -> None:
    """Prints the table."""
    parser = common.make_parser(__doc__)
    parser.add_argument("--keys", type=int, nargs="+", default=[8, 64, 128, 256])
    arguments = parser.parse_args()
    jax.config.update("jax_num_cpu_devices", DEVICES)
    with jax.enable_x64(True):
        rows = measure(arguments.keys, arguments.rounds)
    columns = {
        "program": "program",
        "keys": "keys",
        "time_steps_per_second": "time steps per second",
        "ratio": "÷ single_key",
    }
    common.report(rows, columns, arguments.results)


if __name__ == "__main__":
    main()
