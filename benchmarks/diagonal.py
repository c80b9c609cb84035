"""Linear recurrences: the associative unroll against the sequential one, and the cost of RTRL.

    python -m benchmarks.diagonal [--rounds N] [--results FILE]

Part 1: value and gradient of the summed squares of the ys of an LRU, by `artbp.associative_unroll`
and by `artbp.unroll`, over T steps. Part 2: a step of `artbp.diagonal_rtrl` and of `artbp.rtrl`
with the same LRU of H units, against a step of TBPTT. The arithmetic of diagonal_rtrl grows with
the number of parameters, which with a fixed input grows like H; that of rtrl with the number of
states times that.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp

import artbp
from artbp import cells
from benchmarks import common

INPUTS = 16
UNITS, SIZES = 64, ((1, 64), (1, 256), (1, 1024), (1, 4096), (1, 16384), (16, 256), (16, 4096))
RTRL_ROWS, RTRL_STEPS, RTRL_UNITS, RTRL_LARGEST = 8, 64, (32, 64, 128, 256, 512), 64


def unrolls(rows: int, num_steps: int, rounds: int) -> dict[str, Any]:
    """The times of both unrolls."""
    params = cells.lru.init(jax.random.key(0), INPUTS, UNITS, smallest=0.9, largest=0.999)
    carry = cells.lru.initial_carry(params, rows)
    xs = jax.random.normal(jax.random.key(1), (num_steps, rows, INPUTS))

    def loss(unroll: Any, params: Any, carry: Any, xs: jax.Array) -> jax.Array:
        return jnp.sum(unroll(cells.lru, params, carry, xs)[1] ** 2)

    contenders = {}
    for name, unroll in (("sequential", artbp.unroll), ("associative", artbp.associative_unroll)):
        run = jax.jit(jax.value_and_grad(functools.partial(loss, unroll)))
        contenders[name] = functools.partial(run, params, carry, xs)
    seconds = common.interleave(contenders, rounds)
    return {
        "rows": rows,
        "T": num_steps,
        "sequential_ms": common.median_ms(seconds, "sequential"),
        "ratio": common.median_ratio(seconds, "associative", "sequential"),
    }


def rtrl(units: int, rounds: int) -> dict[str, Any]:
    """The times of a step of RTRL in both ways; the full one up to RTRL_LARGEST units."""
    params = cells.lru.init(jax.random.key(0), INPUTS, units, output_size=1)
    carry = cells.lru.initial_carry(params, RTRL_ROWS)
    xs = jax.random.normal(jax.random.key(1), (RTRL_STEPS, RTRL_ROWS, INPUTS))
    stream = artbp.Stream(xs, jnp.zeros((RTRL_STEPS, RTRL_ROWS)))

    def loss_fn(params: Any, y: jax.Array, target: jax.Array) -> jax.Array:
        del params
        return (y[..., 0] - target) ** 2

    make = {
        "tbptt": functools.partial(artbp.tbptt, truncation_length=RTRL_STEPS),
        "diagonal_rtrl": functools.partial(artbp.diagonal_rtrl, update_every=RTRL_STEPS),
        "rtrl": functools.partial(artbp.rtrl, update_every=RTRL_STEPS),
    }
    contenders = {}
    for name, estimator in make.items():
        if name == "rtrl" and units > RTRL_LARGEST:
            continue
        one = estimator(cells.lru, loss_fn)
        state = one.init(params, carry, rng_key=jax.random.key(2))
        contenders[name] = functools.partial(jax.jit(one.estimate), params, state, stream)
    seconds = common.interleave(contenders, rounds)
    row: dict[str, Any] = {"units": units, "tbptt_ms": common.median_ms(seconds, "tbptt")}
    for name in ("diagonal_rtrl", "rtrl"):
        if name in seconds:
            row[name] = common.median_ratio(seconds, name, "tbptt")
            row[f"{name}_ms"] = common.median_ms(seconds, name)
    return row


def main() -> None:
    """Prints both tables."""
    arguments = common.make_parser(__doc__).parse_args()
    of_unrolls = [unrolls(*size, arguments.rounds) for size in SIZES]
    columns = {"rows": "rows", "T": "T", "sequential_ms": "sequential, ms"}
    common.print_table(of_unrolls, columns | {"ratio": "associative ÷ sequential"})
    print()
    of_rtrl = [rtrl(units, arguments.rounds) for units in RTRL_UNITS]
    columns = {"units": "units", "tbptt_ms": "TBPTT, ms", "diagonal_rtrl_ms": "diagonal_rtrl, ms"}
    columns |= {"diagonal_rtrl": "÷ TBPTT", "rtrl_ms": "rtrl, ms", "rtrl": "rtrl ÷ TBPTT"}
    common.print_table(of_rtrl, columns)
    common.write_results(of_unrolls + of_rtrl, arguments.results)


if __name__ == "__main__":
    main()
