"""Does a backward pass written by hand pay? Each cell of artbp.cells with and without its own.

    python -m benchmarks.hand_written [--cells lstm gru rnn linear] [--hidden_sizes 128 256]
                                      [--rounds 7] [--results FILE]

One gradient with respect to all parameters of Σ ys · target over 50 steps, batch 64, 50 symbols,
float32, one segment that is the whole stream. "hidden in a function" is the same cell with a
function around it, so that its recurrence is derived by automatic differentiation.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import artbp
from artbp import cells
from benchmarks import common
from benchmarks.model import SYMBOLS, Layer, checked_error, layer_loss, next_gradient

NUM_STEPS, BATCH = 50, 64
SCAN = "lax.scan"


def make_layer(cell: Any, hidden_size: int) -> Layer:
    """Random data and weights, the same in every run."""
    keys = jax.random.split(jax.random.key(0), 3)
    params = {"cell": cell.init(keys[0], SYMBOLS, hidden_size)}
    symbols = jax.random.randint(keys[1], (NUM_STEPS, BATCH), 0, SYMBOLS)
    targets = jax.random.normal(keys[2], (NUM_STEPS, BATCH, hidden_size))
    return Layer(layer_loss, params, np.asarray(symbols), np.asarray(targets))


def measure(name: str, hidden_size: int, rounds: int) -> list[dict[str, Any]]:
    """The rows of one cell and size."""
    cell = getattr(cells, name)
    layer = make_layer(cell, hidden_size)
    own = cell.with_params(lambda params: params["cell"])

    def around(params: Any, carry: Any, x: Any) -> tuple[Any, Any]:
        return own(params, carry, x)

    def total(params: Any, symbols: Any, targets: Any) -> jax.Array:
        carry = cell.initial_carry(params["cell"], BATCH)
        _, ys = jax.lax.scan(lambda carry, x: own(params, carry, x), carry, symbols)
        return jnp.sum(layer_loss(params, ys, targets))

    def estimate(of: Any) -> Any:
        estimator = artbp.tbptt(of, layer_loss, truncation_length=NUM_STEPS, policy="dynamic")
        carry = cell.initial_carry(layer.params["cell"], BATCH)
        return next_gradient(estimator, layer, layer.params, carry)

    gradient = jax.jit(jax.grad(total))
    with jax.enable_x64(True):
        wide, targets = (
            jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), tree)
            for tree in (layer.params, layer.targets)
        )
        reference = jax.device_get(jax.jit(jax.grad(total))(wide, layer.symbols, targets))
    arrays = jax.device_put((layer.params, layer.symbols, layer.targets))
    runs = {
        SCAN: lambda: gradient(*arrays),
        "artbp.tbptt": estimate(own),
        "artbp.tbptt, hidden in a function": estimate(around),
    }
    errors = {key: checked_error(f"{name}: {key}", run(), reference) for key, run in runs.items()}
    seconds = common.interleave(runs, rounds)
    return [
        {
            "cell": name,
            "hidden_size": hidden_size,
            "contender": key,
            "ms": common.median_ms(seconds, key),
            "to_scan": common.median_ratio(seconds, key, SCAN),
            "error": errors[key],
        }
        for key in runs
    ]


def main() -> None:
    """Prints the table of all cells and sizes."""
    parser = common.make_parser(__doc__)
    known = ("lstm", "gru", "rnn", "linear")
    parser.add_argument("--cells", nargs="+", choices=known, default=known)
    parser.add_argument("--hidden_sizes", type=int, nargs="+", default=[128, 256])
    arguments = parser.parse_args()
    rows = [
        row
        for cell in arguments.cells
        for size in arguments.hidden_sizes
        for row in measure(cell, size, arguments.rounds)
    ]
    columns = {
        "cell": "cell",
        "hidden_size": "hidden",
        "contender": "contender",
        "ms": "ms",
        "to_scan": "÷ scan",
        "error": "error",
    }
    common.report(rows, columns, arguments.results)


if __name__ == "__main__":
    main()
