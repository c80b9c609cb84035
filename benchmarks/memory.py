"""What a gradient keeps: residuals per step, peak temporaries, and how they grow with length.

    python -m benchmarks.memory [--hidden_size 128] [--batch 64] [--lengths 1024 4096 16384]
                                [--results FILE]

Nothing is run: residuals are counted from shapes, peak temporaries come from the compiler.

1. Residuals: float bytes per row and time step, in units of the hidden size. Of autodiff and of
   `artbp.fused_unroll`: what the closure of `jax.vjp` grows by. Of the dynamic kernel: its
   scratch, over the steps of a block.
2. Peak: temporaries of one segment with readout and cross-entropy, and the state beside them.
3. Growth: temporaries of the gradient of `artbp.unroll` over the whole sequence, with and without
   `checkpoint`. The loss is inside the cell, so that ys are one number per row and step.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

import artbp
from artbp import cells
from benchmarks import common
from benchmarks.model import CELLS, character_loss, initial_carry, make_layer, own_lstm

_CELL = "cells.lstm"
_BLOCK_SIZE = 256
_MEGA = 1e6

Unroll = Callable[[Any, Any], Any]


def scan(params: Any, symbols: Any) -> Any:
    """The ys of a plain scan."""
    step = functools.partial(cells.lstm, params["cell"])
    return jax.lax.scan(step, initial_carry(params, symbols.shape[1]), symbols)[1]


def fused_unroll(params: Any, symbols: Any) -> Any:
    """The ys of the hand-written backward pass."""
    carry = initial_carry(params, symbols.shape[1])
    return artbp.fused_unroll(CELLS[_CELL], params, carry, symbols)[1]


def residuals(params: Any, batch: int) -> list[dict[str, Any]]:
    """Floats kept per row and time step, over the hidden size."""
    hidden_size = params["cell"]["recurrent"].shape[0]

    def kept(unroll: Unroll, num_steps: int) -> int:
        symbols = jnp.zeros((num_steps, batch), jnp.int32)
        pullback = jax.eval_shape(lambda params: jax.vjp(unroll, params, symbols)[1], params)
        return _float_bytes(pullback)

    unit = batch * hidden_size * 4
    rows = [
        {"what": name, "floats": (kept(unroll, 128) - kept(unroll, 64)) / 64 / unit}
        for name, unroll in (("lax.scan", scan), ("artbp.fused_unroll", fused_unroll))
    ]
    for cell in CELLS:
        estimator = _estimator("artbp", 50, cell)
        scratch = _state(estimator, params, batch).scratch
        floats = _float_bytes(scratch) / _BLOCK_SIZE / unit
        rows.append({"what": f"scratch of the dynamic kernel, {cell}", "floats": floats})
    return [{"table": "residuals", **row} for row in rows]


def peaks(hidden_size: int, batch: int, longest: int) -> list[dict[str, Any]]:
    """Temporaries of one gradient, and the buffers that the state of an estimator holds."""
    layer = make_layer(character_loss, hidden_size, longest, batch)
    stream, params = layer.stream, layer.params
    rows = []
    for cell in CELLS:
        methods = ("artbp", 50), ("tbptt", 50), ("tbptt", 200), ("stored", 50), ("reforward", 50)
        for method, length in methods:
            estimator = _estimator(method, length, cell)
            state = _state(estimator, params, batch)
            program = jax.jit(estimator.estimate, donate_argnums=1)
            temporaries = _temporaries(program, params, state, stream)
            name = f"artbp.{method} {length}, dynamic, {cell}"
            if method in ("stored", "reforward"):
                name = f"artbp.unbiased_tbptt {length}, c = 3/4, {method}, {cell}"
            rows.append(_peak(name, temporaries, _float_bytes(state)))
    for name, unroll in (("lax.scan", scan), ("artbp.fused_unroll", fused_unroll)):
        for length in (50, 200, longest):

            def total(params: Any, symbols: Any, targets: Any, unroll: Unroll = unroll) -> Any:
                return jnp.sum(character_loss(params, unroll(params, symbols), targets))

            data = layer.symbols[:length], layer.targets[:length]
            temporaries = _temporaries(jax.jit(jax.value_and_grad(total)), params, *data)
            rows.append(_peak(f"{name} over {length} steps", temporaries, 0))
    return rows


def growth(hidden_size: int, batch: int, lengths: list[int]) -> list[dict[str, Any]]:
    """Temporaries of a whole-sequence gradient against its length."""
    params = make_layer(character_loss, hidden_size, 1, batch).params

    def cell(params: Any, carry: Any, x: Any) -> tuple[Any, Any]:
        symbol, target = x
        carry, y = own_lstm(params, carry, symbol)
        return carry, character_loss(params, y, target)

    def total(params: Any, xs: Any, checkpoint: bool) -> Any:
        carry = initial_carry(params, batch)
        return jnp.sum(artbp.unroll(cell, params, carry, xs, checkpoint=checkpoint)[1])

    rows = []
    for checkpoint in (False, True):
        program = jax.jit(jax.value_and_grad(functools.partial(total, checkpoint=checkpoint)))
        first = 0.0
        for length in lengths:
            symbols = jax.ShapeDtypeStruct((length, batch), jnp.int32)
            megabytes = _temporaries(program, params, (symbols, symbols)) / _MEGA
            first = first or megabytes
            rows.append(
                {
                    "table": "growth",
                    "what": "artbp.unroll" + (", checkpoint=True" if checkpoint else ""),
                    "length": length,
                    "megabytes": megabytes,
                    "ratio": megabytes / first,
                }
            )
    return rows


def _peak(name: str, temporaries: int, state: int) -> dict[str, Any]:
    return {
        "table": "peaks",
        "what": name,
        "temporaries": temporaries / _MEGA,
        "state": state / _MEGA,
        "megabytes": (temporaries + state) / _MEGA,
    }


def _estimator(method: str, length: int, cell: str) -> artbp.GradientEstimator:
    if method in ("stored", "reforward"):
        law = artbp.truncation.geometric(4 / 3)
        mode: Any = method
        return artbp.unbiased_tbptt(
            CELLS[cell], character_loss, law, truncation_length=length, mode=mode
        )
    options: dict[str, Any] = {"policy": "dynamic", "block_size": _BLOCK_SIZE}
    if method == "tbptt":
        return artbp.tbptt(CELLS[cell], character_loss, truncation_length=length, **options)
    law = artbp.truncation.polynomial(length, 4)
    return artbp.artbp(CELLS[cell], character_loss, law, **options)


def _state(estimator: artbp.GradientEstimator, params: Any, batch: int) -> Any:
    return estimator.init(params, initial_carry(params, batch), rng_key=jax.random.key(0))


def _temporaries(program: Any, *arguments: Any) -> int:
    return program.lower(*arguments).compile().memory_analysis().temp_size_in_bytes


def _float_bytes(tree: Any) -> int:
    """Bytes of the float leaves: symbols, keys and counters are the caller's anyway."""
    leaves = [leaf for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.floating)]
    return sum(leaf.size * leaf.dtype.itemsize for leaf in leaves)


def main() -> None:
    """Prints the three tables."""
    parser = common.make_parser(__doc__)
    parser.add_argument("--hidden_size", type=int, default=128)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--lengths", type=int, nargs="+", default=[1024, 4096, 16_384])
    arguments = parser.parse_args()
    hidden_size, batch, lengths = arguments.hidden_size, arguments.batch, arguments.lengths
    layer = make_layer(character_loss, hidden_size, 1, batch)
    tables = {
        "residuals": (residuals(layer.params, batch), {"floats": "floats per unit"}),
        "peaks": (
            peaks(hidden_size, batch, lengths[0]),
            {"temporaries": "temporaries, MB", "state": "state, MB", "megabytes": "together, MB"},
        ),
        "growth": (
            growth(hidden_size, batch, lengths),
            {"length": "T", "megabytes": "temporaries, MB", "ratio": "÷ first"},
        ),
    }
    for rows, columns in tables.values():
        common.print_table(rows, {"what": "what", **columns})
        print()
    common.write_results([row for rows, _ in tables.values() for row in rows], arguments.results)


if __name__ == "__main__":
    main()
