"""What an accelerator shows, in one run that fits into a short lease of a machine.

    python -m benchmarks.accelerator --results FILE [--budget 480] [--only PART ...] [--small]

Parts run in this order, the most valuable first. Each is written to FILE as it ends, and the same
command again goes on with the parts that are missing. A part is not begun if the budget would not
last for it.

    steps        microseconds per time step: ARTBP under each policy, unbiased TBPTT and TBPTT
    layer-N      one gradient of an LSTM layer of N units against cuDNN and others
    characters   characters per second of a training with 1000 units
    long         one gradient over 1024 steps, 768 units, batch 16
    balancing    the training of the main job, influence balancing, at a tenth of its length

"steps" also answers what a loop of unknown length costs: `artbp, dynamic` has one within each
segment, and in `unbiased_tbptt` and `tbptt, lax.scan` the loops over the steps of a window are of
static length. --small runs some parts at a size for a test on a CPU. cuDNN is used through
`jax.experimental.rnn`, in float32 only, on a GPU only. A contender whose gradient is wrong is not
timed, and its row says so.
"""

import argparse
import functools
import json
import pathlib
import statistics
import time
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import rnn

import artbp
from artbp import cells
from benchmarks import common
from benchmarks.artbp_vs_tbptt import MAKERS
from benchmarks.model import (
    SYMBOLS,
    Layer,
    cell_params,
    character_loss,
    checked_error,
    layer_loss,
    make_layer,
    next_gradient,
    reference_gradient,
)
from benchmarks.peers import Contender, autodiff, one_hot, peers
from benchmarks.walks import Walk, scan
from experiments.common import provenance

BATCH = 64
# Float32 products on a GPU are rounded to TF32, which has as many digits as float16.
_LIMITS = {"float32": 5e-3, "bfloat16": 0.1}

Row = dict[str, Any]


class Sizes(NamedTuple):
    """The sizes of a run."""

    walk: tuple[int, int]  # hidden size and time steps of "steps"
    characters: tuple[int, int]  # the same of "characters"
    long: tuple[int, int, int]  # hidden size, time steps and rows of "long"
    balancing_steps: int
    rounds: int


FULL = Sizes((256, 2000), (1000, 2000), (768, 1024, 16), 10_000, 7)
SMALL = Sizes((8, 50), (8, 50), (8, 20, 2), 200, 1)


def steps(sizes: Sizes) -> list[Row]:
    """A pass of one stream with an update per segment, all contenders in turn."""
    names = [name for name in MAKERS if name != "tbptt, exact"]
    return _walks(names, sizes.walk, sizes.rounds, base="tbptt, lax.scan")


def _walks(names: list[str], size: tuple[int, int], rounds: int, base: str) -> list[Row]:
    """Passes of one stream with an update per segment; size: (hidden size, time steps)."""
    hidden_size, num_steps = size
    layer = make_layer(character_loss, hidden_size, num_steps, BATCH)
    walks = {name: MAKERS[name]("cells.lstm", layer) for name in names}
    return _timed(
        {name: functools.partial(_one_pass, walk) for name, walk in walks.items()},
        rounds,
        base=base,
        hidden_size=hidden_size,
        per=("us_per_step", 1e6 / num_steps),
    )


def _one_pass(walk: Walk) -> common.Seconds:
    """The seconds of a pass, without its preparation."""
    state = jax.block_until_ready(walk.prepare())
    return common.Seconds(common.timed(lambda: walk.run(state)[0]))


def layer(hidden_size: int, sizes: Sizes) -> list[Row]:
    """Gradients over 50 steps, batch 64, in both precisions."""
    small = sizes is SMALL
    return _gradients(make_layer(layer_loss, 8 if small else hidden_size, 50, BATCH), sizes.rounds)


def long(sizes: Sizes) -> list[Row]:
    """Gradients over many steps of few rows."""
    hidden_size, num_steps, rows = sizes.long
    return _gradients(make_layer(layer_loss, hidden_size, num_steps, rows), sizes.rounds)


def characters(sizes: Sizes) -> list[Row]:
    """Trainings with a readout to the symbols."""
    names = ["tbptt, dynamic", "artbp, dynamic", "artbp, pow2", "unbiased_tbptt, stored"]
    rounds = max(1, sizes.rounds // 3)
    rows = _walks(names, sizes.characters, rounds, base="tbptt, dynamic")
    return [row | {"characters_per_s": 1e6 * BATCH / row["us_per_step"]} for row in rows]


def balancing(sizes: Sizes) -> list[Row]:
    """Three arms of the main job, 128 keys each, in float64."""
    from experiments.common.arms import parse
    from experiments.influence_balancing.training import train_arm

    config = SimpleNamespace(
        **{"seed": 0, "num_keys": 128, "num_bins": 60, "num_steps": sizes.balancing_steps},
        **{"loss_at": "every step", "drive_noise": 0.0, "theta_0": 0.5},
        **{"study": "curves", "eta_0": 1e-3, "schedule": "time steps"},
    )
    rows = []
    for text in ("artbp(16, alpha=4)", "unbiased_tbptt(10, windows=1.5, alpha=4)", "tbptt(10)"):
        run = train_arm(config, parse(text))
        found = {"contender": text, "seconds": run.run_seconds, "compile": run.compile_seconds}
        found["us_per_step"] = 1e6 * run.run_seconds / sizes.balancing_steps
        rows.append(found | {"median_theta": float(statistics.median(run.final_theta.tolist()))})
    return rows


def _gradients(layer: Layer, rounds: int) -> list[Row]:
    """One gradient of the layer, by all contenders in turn, each compared with float64 first."""
    num_steps, batch = layer.symbols.shape
    hidden_size = layer.params["cell"]["recurrent"].shape[0]
    contenders = {
        f"{name}, {precision}": contender
        for precision, select in (("float32", cell_params), ("bfloat16", _narrow_cell_params))
        for name, contender in _ours(layer, cells.lstm.with_params(select)).items()
    }
    cudnn = "cuDNN, float32"
    if jax.default_backend() == "gpu":
        contenders[cudnn] = cudnn_lstm(layer, rnn.lstm)
    others = peers(layer, threads=1)
    contenders |= {f"{n}, float32": others[n] for n in others if not n.startswith("torch")}
    reference, errors, wrong = reference_gradient(layer), {}, []
    sizes = {"hidden_size": hidden_size, "num_steps": num_steps, "batch": batch}
    for name, found in list(contenders.items()):
        limit = _LIMITS[name.rpartition(", ")[2]]
        try:
            errors[name] = checked_error(name, found.gradient(found.run()), reference, limit)
        except Exception as error:  # the other contenders are worth having
            del contenders[name]
            wrong.append({"contender": name, "error": f"{type(error).__name__}: {error}"} | sizes)
    rows = _timed(
        {name: found.run for name, found in contenders.items()},
        rounds,
        base=cudnn if cudnn in contenders else "lax.scan of cells.lstm, float32",
        hidden_size=hidden_size,
        per=("ms", 1e3),
    )
    return [row | sizes | {"error": errors[row["contender"]]} for row in rows] + wrong


def _narrow_cell_params(params: Any) -> Any:
    return jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), params["cell"])


def _ours(layer: Layer, cell: cells.ReferenceCell) -> dict[str, Contender]:
    num_steps, batch = layer.symbols.shape
    own = cell.select(layer.params) if cell.select else layer.params
    carry = cells.lstm.initial_carry(own, batch)

    def unrolled(unroll: Callable[..., Any]) -> Contender:
        def hidden_states(params: Any, xs: Any) -> jax.Array:
            return unroll(cell, params, carry, xs)[1]

        return autodiff(layer, hidden_states, layer.params["cell"], layer.symbols)

    def estimated(policy: artbp.unrolls.Policy) -> Contender:
        estimator = artbp.tbptt(cell, layer.loss_fn, truncation_length=num_steps, policy=policy)
        run = next_gradient(estimator, layer, layer.params, carry, jit=policy == "dynamic")
        return Contender(run, lambda grads: grads)

    return {
        "artbp.tbptt, exact": estimated("exact"),
        "artbp.tbptt, dynamic": estimated("dynamic"),
        "artbp.fused_unroll": unrolled(artbp.fused_unroll),
        "lax.scan of cells.lstm": unrolled(scan),
    }


def cudnn_lstm(layer: Layer, lstm: Callable[..., Any]) -> Contender:
    """A function with the arguments of `jax.experimental.rnn.lstm`, with the weights of ours.

    That function wants the batch first, and all weights in one vector: W_ih [4H, D], W_hh [4H, H]
    and two biases [4H], with gates in the order i, f, g, o.
    """
    num_steps, batch = layer.symbols.shape
    hidden_size = layer.params["cell"]["recurrent"].shape[0]
    lengths = jnp.full((batch,), num_steps, jnp.int32)
    zeros = jnp.zeros((1, batch, hidden_size))

    def hidden_states(params: Any, xs: Any) -> jax.Array:
        weights = params["cell"]
        parts = weights["input"].T, weights["recurrent"].T, weights["bias"]
        vector = jnp.concatenate([*(part.ravel() for part in parts), 0 * weights["bias"]])
        given = jnp.swapaxes(xs, 0, 1), zeros, zeros, vector, lengths
        ys = lstm(*given, SYMBOLS, hidden_size, 1, 0.0, False)[0]
        return jnp.swapaxes(ys, 0, 1)

    return autodiff(layer, hidden_states, layer.params["cell"], one_hot(layer))


def _timed(
    contenders: Mapping[str, Callable[[], Any]],
    rounds: int,
    *,
    base: str,
    hidden_size: int,
    per: tuple[str, float],
) -> list[Row]:
    """Interleaved times; `per`: the field for the median time, and what a second counts in it."""
    seconds = common.interleave(contenders, rounds)
    field, factor = per
    return [
        {
            "contender": name,
            "hidden_size": hidden_size,
            field: factor * statistics.median(seconds[name]),
            "ratio": common.median_ratio(seconds, name, base),
            "base": base,
        }
        for name in contenders
    ]


# What each part takes at full size, compilation included: a guess, until it is measured on a GPU.
PARTS: dict[str, tuple[Callable[[Sizes], list[Row]], float]] = {
    "steps": (steps, 120.0),
    "layer-256": (functools.partial(layer, 256), 40.0),
    "layer-1000": (functools.partial(layer, 1000), 40.0),
    "characters": (characters, 60.0),
    "layer-128": (functools.partial(layer, 128), 40.0),
    "layer-768": (functools.partial(layer, 768), 40.0),
    "long": (long, 60.0),
    "balancing": (balancing, 60.0),
}
SMALL_PARTS = ["steps", "layer-256", "characters", "balancing"]
_COLUMNS = {
    "contender": "contender",
    "hidden_size": "hidden",
    "us_per_step": "µs a step",
    "ms": "ms",
    "characters_per_s": "characters a second",
    "seconds": "s",
    "ratio": "÷ base",
    "base": "base",
    "error": "error",
}


def run(names: list[str], sizes: Sizes, budget: float, path: pathlib.Path) -> None:
    """Runs the parts that the file lacks, and writes the file after each of them.

    A part that fails is noted in the file with its error, and the others still run.
    """
    start = time.perf_counter()
    machine = provenance.machine()
    content: dict[str, Any] = {"sizes": sizes._asdict(), "machine": machine, "parts": {}}
    if path.is_file():
        found = json.loads(path.read_text(encoding="utf-8"))
        same = ("sizes", "machine")
        if any(found[key] != json.loads(json.dumps(content[key])) for key in same):
            raise SystemExit(
                f"{path} was written at other sizes or on another machine. Name another file."
            )
        content = found
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    for name in names:
        if "rows" in content["parts"].get(name, {}):
            continue
        measure, expected = PARTS[name]
        left = budget - (time.perf_counter() - start)
        if sizes is FULL and left < expected:
            print(f"{name}: not begun, {left:.0f} s are left and it may take {expected:.0f} s")
            continue
        begun = time.perf_counter()
        try:
            part: dict[str, Any] = {"rows": measure(sizes)}
        except Exception as error:  # the other parts are worth having
            part = {"error": f"{type(error).__name__}: {error}"}
        part["seconds"] = time.perf_counter() - begun
        content["parts"][name] = part
        path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        print(f"\n{name}, {part['seconds']:.0f} s\n")
        if "error" in part:
            print(part["error"], flush=True)
            continue
        fields = {field for row in part["rows"] for field in row}
        columns = {field: words for field, words in _COLUMNS.items() if field in fields}
        common.print_table(part["rows"], columns)


def main() -> None:
    """Runs the parts; exits with 1 if one of them has failed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--results", type=pathlib.Path, required=True, help="JSON file")
    parser.add_argument("--budget", type=float, default=480, help="seconds for all parts")
    parser.add_argument("--only", nargs="+", choices=PARTS, help="default: all parts")
    parser.add_argument("--small", action="store_true", help="sizes for a test on a CPU")
    arguments = parser.parse_args()
    sizes = SMALL if arguments.small else FULL
    names = arguments.only or (SMALL_PARTS if arguments.small else list(PARTS))
    run(names, sizes, arguments.budget, arguments.results)
    parts = json.loads(arguments.results.read_text(encoding="utf-8"))["parts"]
    raise SystemExit(any("error" in parts.get(name, {}) for name in names))


if __name__ == "__main__":
    main()
