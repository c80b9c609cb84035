"""Time per step and row against length, batch and hidden size, and how far from the bound.

    python -m benchmarks.scaling [--lengths 16 ... 16384] [--batches 1 ... 256]
                                 [--hidden_sizes 32 ... 1024] [--cells "cells.lstm"]
                                 [--rounds 7] [--results FILE]

One estimate of `artbp.tbptt` under `dynamic`, its segment `length` steps long, one axis at a time
around length 256, batch 64, hidden size 128. In the same interleaved run, the product rates of the
machine: of a large product, and of the two skinny ones of a step, [B, H] x [H, 4H] and back, each
after the other as a recurrence needs them.

    bound = (8 + 8) B H² / skinny rate + 8 B H² / large rate        for each step of B rows

These are the products that no LSTM gradient can do without, with the weight gradient as one large
product. Recomputation counts as overhead. "fraction" is the bound over the measured time.
"""

import statistics
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

import artbp
from benchmarks import common
from benchmarks.model import (
    CELLS,
    Layer,
    checked_error,
    initial_carry,
    make_layer,
    next_gradient,
    reference_gradient,
    unit_sum_loss,
)

CENTRE = {"length": 256, "batch": 64, "hidden_size": 128}
_LARGE = 1536
# A call repeats a skinny product so often that its dispatch does not count.
_SKINNY_FLOPS = 2e8


def estimate(layer: Layer, cell: str) -> Callable[[], Any]:
    """One gradient of a segment that is the whole stream, the state donated."""
    num_steps, batch = layer.symbols.shape
    estimator = artbp.tbptt(
        CELLS[cell], layer.loss_fn, truncation_length=num_steps, policy="dynamic"
    )
    return next_gradient(estimator, layer, layer.params, initial_carry(layer.params, batch))


def large_product() -> tuple[Callable[[], Any], float]:
    """A square product, and its floating-point operations."""
    matrix = jax.random.normal(jax.random.key(0), (_LARGE, _LARGE))
    product = jax.jit(jnp.matmul)
    return lambda: product(matrix, matrix), 2.0 * _LARGE**3


def skinny_products(layer: Layer) -> tuple[Callable[[], Any], float]:
    """[B, H] x [H, 4H] and back, again and again, and their floating-point operations."""
    # Halved, the four orthogonal blocks side by side keep the norm there and back.
    weights = layer.params["cell"]["recurrent"] / 2
    batch, hidden_size = layer.symbols.shape[1], weights.shape[0]
    flops = 16.0 * batch * hidden_size**2
    count = max(int(_SKINNY_FLOPS / flops), 8)

    @jax.jit
    def run(hidden: jax.Array, weights: jax.Array) -> jax.Array:
        def there_and_back(_: Any, hidden: jax.Array) -> jax.Array:
            return (hidden @ weights) @ weights.T

        return jax.lax.fori_loop(0, count, there_and_back, hidden)

    hidden = jnp.ones((batch, hidden_size))
    return lambda: run(hidden, weights), count * flops


def measure(cell: str, axis: str, value: int, rounds: int) -> dict[str, Any]:
    """One row: `axis` at `value`, the rest at the centre."""
    length, batch, hidden_size = (CENTRE | {axis: value}).values()
    layer = make_layer(unit_sum_loss, hidden_size, length, batch)
    run = estimate(layer, cell)
    error = checked_error(f"{cell}, {axis} {value}", run(), reference_gradient(layer))
    large, large_flops = large_product()
    skinny, skinny_flops = skinny_products(layer)
    seconds = common.interleave({"segment": run, "large": large, "skinny": skinny}, rounds)
    large_rate = large_flops / statistics.median(seconds["large"])
    skinny_rate = skinny_flops / statistics.median(seconds["skinny"])
    needed = 8.0 * batch * hidden_size**2 * length
    # The median over rounds, each with the rates that the machine had in it.
    fraction = statistics.median(
        needed * (2 * one_skinny / skinny_flops + one_large / large_flops) / one_segment
        for one_segment, one_large, one_skinny in zip(*seconds.values(), strict=True)
    )
    milliseconds = common.median_ms(seconds, "segment")
    return {
        "cell": cell,
        "axis": axis,
        "length": length,
        "batch": batch,
        "hidden_size": hidden_size,
        "ms": milliseconds,
        "ns": 1e6 * milliseconds / (length * batch),
        "gflops": 3 * needed / (1e6 * milliseconds),
        "skinny_gflops": skinny_rate / 1e9,
        "large_gflops": large_rate / 1e9,
        "fraction": fraction,
        "error": error,
    }


def main() -> None:
    """Prints the table of all axes."""
    parser = common.make_parser(__doc__)
    parser.add_argument("--lengths", type=int, nargs="*", default=[4**i for i in range(2, 8)])
    parser.add_argument("--batches", type=int, nargs="*", default=[4**i for i in range(5)])
    parser.add_argument("--hidden_sizes", type=int, nargs="*", default=[32, 64, 256, 512, 1024])
    parser.add_argument("--cells", nargs="+", choices=CELLS, default=list(CELLS))
    arguments = parser.parse_args()
    axes = {
        "length": arguments.lengths,
        "batch": arguments.batches,
        "hidden_size": arguments.hidden_sizes,
    }
    rows = [
        measure(cell, axis, value, arguments.rounds)
        for cell in arguments.cells
        for axis, values in axes.items()
        for value in values
    ]
    columns = {
        "cell": "cell",
        "length": "length",
        "batch": "batch",
        "hidden_size": "hidden",
        "ms": "ms",
        "ns": "ns per step and row",
        "gflops": "GFLOP/s",
        "skinny_gflops": "skinny",
        "large_gflops": "large",
        "fraction": "fraction of the bound",
        "error": "error",
    }
    common.report(rows, columns, arguments.results)


if __name__ == "__main__":
    main()
