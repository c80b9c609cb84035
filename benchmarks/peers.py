"""The same LSTM layer in other libraries, each with the weights of ours.

Theirs read one-hot vectors where ours read symbols. The layouts (gates i, f, g, o side by side):

    artbp    input [D, 4H], recurrent [H, 4H], bias [4H]
    torch    weight_ih [4H, D], weight_hh [4H, H], bias_ih [4H], bias_hh [4H]
    flax     kernels ii, if, ig, io [D, H] and hi, hf, hg, ho [H, H], biases with the latter
    haiku    w [D + H, 4H], b [4H], gates i, g, f, o; 1 is added to the forget gate
    equinox  weight_ih [4H, D], weight_hh [4H, H], bias [4H]
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.common import optional_import
from benchmarks.model import SYMBOLS, Layer, character_loss


class Contender(NamedTuple):
    """One way to the gradient of a layer.

    Attributes:
      run: computes it once; what it returns is waited for.
      gradient: what `run` returns, in the layout of the layer's params.
    """

    run: Callable[[], Any]
    gradient: Callable[[Any], Any]


def autodiff(
    layer: Layer,
    hidden_states: Callable[[Any, Any], jax.Array],
    cell: Any,
    xs: Any,
    ours: Callable[[Any], Any] = lambda gradient: gradient,
) -> Contender:
    """Loss and gradient by reverse mode through `hidden_states(params, xs) -> ys [T, B, H]`.

    Args:
      cell: params["cell"] as `hidden_states` wants it.
      ours: a gradient for `cell` in the layout of artbp.
    """

    @jax.jit
    def value_and_grad(params: Any, xs: Any, targets: Any) -> tuple[jax.Array, Any]:
        def total(params: Any) -> jax.Array:
            return jnp.sum(layer.loss_fn(params, hidden_states(params, xs), targets))

        return jax.value_and_grad(total)(params)

    arguments = jax.device_put(({**layer.params, "cell": cell}, xs, layer.targets))

    def gradient(result: Any) -> Any:
        grads = result[1]
        return {**grads, "cell": ours(grads["cell"])}

    return Contender(lambda: value_and_grad(*arguments), gradient)


def peers(layer: Layer, threads: int) -> dict[str, Contender]:
    """The contenders whose libraries are installed."""
    makers = {
        "torch": ("torch.nn.LSTM", lambda torch: _torch(layer, torch, threads)),
        "flax.linen": ("flax nn.RNN(OptimizedLSTMCell)", lambda nn: _flax(layer, nn)),
        "haiku": ("haiku dynamic_unroll(LSTM)", lambda hk: _haiku(layer, hk)),
        "equinox": ("equinox LSTMCell in lax.scan", lambda eqx: _equinox(layer, eqx)),
    }
    modules = {name: optional_import(name) for name in makers}
    return {label: make(modules[name]) for name, (label, make) in makers.items() if modules[name]}


def one_hot(layer: Layer) -> np.ndarray:
    """The symbols as float32 [T, B, D]."""
    return np.eye(SYMBOLS, dtype=np.float32)[layer.symbols]


def _flax(layer: Layer, nn: Any) -> Contender:
    hidden_size = layer.params["cell"]["recurrent"].shape[0]
    rnn = nn.RNN(nn.OptimizedLSTMCell(hidden_size), time_major=True)
    weights = jax.device_get(layer.params["cell"])
    theirs = {}
    for i, gate in enumerate("ifgo"):
        block = slice(i * hidden_size, (i + 1) * hidden_size)
        theirs["i" + gate] = {"kernel": weights["input"][:, block]}
        kernel, bias = weights["recurrent"][:, block], weights["bias"][block]
        theirs["h" + gate] = {"kernel": kernel, "bias": bias}

    def hidden_states(params: Any, xs: Any) -> Any:
        return rnn.apply({"params": {"cell": params["cell"]}}, xs)

    def ours(grads: Any) -> Any:
        def join(source: str, leaf: str) -> np.ndarray:
            return np.concatenate([grads[source + gate][leaf] for gate in "ifgo"], axis=-1)

        return {
            "input": join("i", "kernel"),
            "recurrent": join("h", "kernel"),
            "bias": join("h", "bias"),
        }

    return autodiff(layer, hidden_states, theirs, one_hot(layer), ours)


def _haiku(layer: Layer, hk: Any) -> Contender:
    weights = jax.device_get(layer.params["cell"])
    hidden_size, batch = weights["recurrent"].shape[0], layer.symbols.shape[1]

    def swap(array: np.ndarray) -> np.ndarray:  # i, f, g, o to i, g, f, o, and back
        i, f, g, o = np.split(np.asarray(array), 4, axis=-1)
        return np.concatenate([i, g, f, o], axis=-1)

    def network(xs: Any) -> Any:
        core = hk.LSTM(hidden_size)
        return hk.dynamic_unroll(core, xs, core.initial_state(batch))[0]

    apply = hk.without_apply_rng(hk.transform(network)).apply
    bias = swap(weights["bias"])
    bias[2 * hidden_size : 3 * hidden_size] -= 1
    w = np.concatenate([swap(weights["input"]), swap(weights["recurrent"])])

    def ours(grads: Any) -> Any:
        linear = grads["lstm/linear"]
        return {
            "input": swap(linear["w"][:SYMBOLS]),
            "recurrent": swap(linear["w"][SYMBOLS:]),
            "bias": swap(linear["b"]),
        }

    def hidden_states(params: Any, xs: Any) -> Any:
        return apply(params["cell"], xs)

    return autodiff(
        layer, hidden_states, {"lstm/linear": {"w": w, "b": bias}}, one_hot(layer), ours
    )


def _equinox(layer: Layer, eqx: Any) -> Contender:
    weights = layer.params["cell"]
    hidden_size, batch = weights["recurrent"].shape[0], layer.symbols.shape[1]
    cell = eqx.tree_at(
        lambda cell: (cell.weight_ih, cell.weight_hh, cell.bias),
        eqx.nn.LSTMCell(SYMBOLS, hidden_size, key=jax.random.key(0)),
        (weights["input"].T, weights["recurrent"].T, weights["bias"]),
    )

    def hidden_states(params: Any, xs: Any) -> Any:
        def step(carry: Any, x: Any) -> tuple[Any, Any]:
            carry = jax.vmap(params["cell"])(x, carry)
            return carry, carry[0]

        zeros = jnp.zeros((batch, hidden_size))
        return jax.lax.scan(step, (zeros, zeros), xs)[1]

    def ours(grads: Any) -> Any:
        return {"input": grads.weight_ih.T, "recurrent": grads.weight_hh.T, "bias": grads.bias}

    return autodiff(layer, hidden_states, cell, one_hot(layer), ours)


def _torch(layer: Layer, torch: Any, threads: int) -> Contender:
    torch.set_num_threads(threads)
    params = jax.tree.map(lambda leaf: torch.tensor(np.asarray(leaf)), layer.params)
    weights = params["cell"]
    lstm = torch.nn.LSTM(SYMBOLS, weights["recurrent"].shape[0])
    with torch.no_grad():
        lstm.weight_ih_l0.copy_(weights["input"].T)
        lstm.weight_hh_l0.copy_(weights["recurrent"].T)
        lstm.bias_ih_l0.copy_(weights["bias"])
        lstm.bias_hh_l0.zero_()
    variables = dict(lstm.named_parameters())
    if layer.loss_fn is character_loss:
        variables |= {name: leaf.requires_grad_() for name, leaf in params["readout"].items()}
    xs = torch.tensor(one_hot(layer))
    targets = torch.tensor(layer.targets)

    def run() -> dict[str, Any]:
        ys, _ = lstm(xs)
        if layer.loss_fn is character_loss:
            logits = ys @ variables["kernel"] + variables["bias"]
            cross_entropy = torch.nn.functional.cross_entropy
            loss = cross_entropy(logits.flatten(0, 1), targets.flatten().long(), reduction="sum")
        else:
            loss = (ys * targets).sum()
        grads = torch.autograd.grad(loss, list(variables.values()))
        return dict(zip(variables, grads, strict=True))

    def gradient(grads: dict[str, Any]) -> Any:
        arrays = {name: grad.numpy() for name, grad in grads.items()}
        cell = {
            "input": arrays["weight_ih_l0"].T,
            "recurrent": arrays["weight_hh_l0"].T,
            "bias": arrays["bias_ih_l0"],
        }
        readout = {name: arrays[name] for name in params.get("readout", {})}
        return {"cell": cell} | ({"readout": readout} if readout else {})

    return Contender(run, gradient)
