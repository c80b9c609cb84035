"""How far a gradient is from the one in float64, and what a narrower type saves.

    python -m benchmarks.precision [--lengths 64 257 1024] [--hidden_size 128] [--batch 64]
                                   [--rounds 7] [--results FILE]

One ARTBP segment of `length` steps (L0 = 50, α = 4; the product of its gates at 1,024 steps is more
than a thousand), LSTM with readout and cross-entropy, for three ways to the gradient,

    unroll        autodiff of `artbp.unroll`, a gated scan
    fused_unroll  `artbp.fused_unroll`
    estimator     `artbp.artbp` under `dynamic`

in three precisions: float32; bfloat16, the weights of the cell; mixed, float32 weights cast to
bfloat16 on their way into the cell. The error of a leaf is ‖g − g64‖ / ‖g64‖, with g64 the gradient
at the float32 weights: the rounding of the weights counts as error.
"""

import argparse
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

import artbp
from artbp import cells
from benchmarks import common
from benchmarks.model import (
    Layer,
    cell_params,
    character_loss,
    checked_error,
    gates_of,
    make_layer,
    next_gradient,
    reference_gradient,
    relative_errors,
)

BASE = ("unroll", "float32")
LAW = artbp.truncation.polynomial(50, 4)
# An error above these means a wrong program, not a narrow type.
_LIMITS = {"float32": 1e-3, "bfloat16": 0.5, "mixed": 0.5}

Gradient = Callable[[], Any]


def _narrow(tree: Any) -> Any:
    return jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), tree)


def _narrow_cell_params(params: Any) -> Any:
    return _narrow(params["cell"])


def gradients(layer: Layer) -> dict[tuple[str, str], Gradient]:
    """The contenders, by way and precision."""
    narrow = {**layer.params, "cell": _narrow(layer.params["cell"])}
    contenders = {}
    for precision, params, select in (
        ("float32", layer.params, cell_params),
        ("bfloat16", narrow, cell_params),
        ("mixed", layer.params, _narrow_cell_params),
    ):
        cell = cells.lstm.with_params(select)
        carry = cells.lstm.initial_carry(select(params), layer.symbols.shape[1])
        for name, unroll in (("unroll", artbp.unroll), ("fused_unroll", artbp.fused_unroll)):
            contenders[name, precision] = _by_autodiff(unroll, cell, params, carry, layer)
        contenders["estimator", precision] = _by_estimator(cell, params, carry, layer)
    return contenders


def _by_autodiff(unroll: Any, cell: Any, params: Any, carry: Any, layer: Layer) -> Gradient:
    @jax.jit
    def gradient(params: Any, carry: Any, data: Any) -> Any:
        symbols, targets, gates = data

        def total(params: Any) -> jax.Array:
            _, ys = unroll(cell, params, carry, symbols, gates=gates)
            return jnp.sum(layer.loss_fn(params, ys, targets))

        return jax.grad(total)(params)

    gates = jnp.asarray(gates_of(LAW, [layer.symbols.shape[0]]), jnp.float32)
    arguments = jax.device_put((params, carry, (layer.symbols, layer.targets, gates)))
    return lambda: gradient(*arguments)


def _by_estimator(cell: Any, params: Any, carry: Any, layer: Layer) -> Gradient:
    law = artbp.truncation.replay([layer.symbols.shape[0]], LAW)
    estimator = artbp.artbp(cell, layer.loss_fn, law, policy="dynamic")
    return next_gradient(estimator, layer, params, carry)


def measure(arguments: argparse.Namespace, length: int) -> list[dict[str, Any]]:
    """The rows of one segment length."""
    layer = make_layer(character_loss, arguments.hidden_size, length, arguments.batch)
    reference = reference_gradient(layer, gates_of(LAW, [length]))
    contenders = gradients(layer)
    errors = {}
    for (name, precision), gradient in contenders.items():
        grads = gradient()
        label = f"{name}, {precision}, {length} steps"
        checked_error(label, grads, reference, _LIMITS[precision])
        errors[name, precision] = relative_errors(grads, reference)
    labels = {" ".join(key): contender for key, contender in contenders.items()}
    seconds = common.interleave(labels, arguments.rounds)
    return [
        {
            "length": length,
            "gradient": name,
            "precision": precision,
            **errors[name, precision],
            "ms": common.median_ms(seconds, f"{name} {precision}"),
            "ratio": common.median_ratio(seconds, f"{name} {precision}", " ".join(BASE)),
        }
        for name, precision in contenders
    ]


def main() -> None:
    """Prints the table of all lengths."""
    parser = common.make_parser(__doc__)
    parser.add_argument("--lengths", type=int, nargs="+", default=[64, 257, 1024])
    parser.add_argument("--hidden_size", type=int, default=128)
    parser.add_argument("--batch", type=int, default=64)
    arguments = parser.parse_args()
    rows = [row for length in arguments.lengths for row in measure(arguments, length)]
    leaves = [name for name in rows[0] if name.startswith(("cell.", "readout."))]
    columns = {
        "length": "T",
        "gradient": "gradient",
        "precision": "precision",
        **{leaf: leaf for leaf in leaves},
        "ms": "ms",
        "ratio": "÷ unroll, float32",
    }
    common.report(rows, columns, arguments.results)


if __name__ == "__main__":
    main()
