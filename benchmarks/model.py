"""What the benchmarks run: an LSTM layer on symbols, its losses, and its gradient in float64.

params = {"cell": parameters of artbp.cells.lstm, "readout": {"kernel", "bias"}}, the readout for
the character task only.
"""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import artbp
from artbp import cells

SYMBOLS = 50

Loss = Callable[[Any, jax.Array, jax.Array], jax.Array]


def own_lstm(params: Any, carry: Any, x: jax.Array) -> tuple[Any, jax.Array]:
    """An LSTM as a user would write it: a plain function, of which artbp knows nothing."""
    weights = params["cell"]
    gates = weights["input"][x] + carry.hidden @ weights["recurrent"] + weights["bias"]
    i, f, g, o = jnp.split(gates, 4, axis=-1)
    memory = jax.nn.sigmoid(f) * carry.memory + jax.nn.sigmoid(i) * jnp.tanh(g)
    hidden = jax.nn.sigmoid(o) * jnp.tanh(memory)
    return carry._replace(memory=memory, hidden=hidden), hidden


def cell_params(params: Any) -> Any:
    """The weights of the cell."""
    return params["cell"]


CELLS = {"cells.lstm": cells.lstm.with_params(cell_params), "own function": own_lstm}


def layer_loss(params: Any, y: jax.Array, target: jax.Array) -> jax.Array:
    """Σ y · target over the units: the target is the cotangent of y."""
    del params
    return jnp.sum(y * target, axis=-1)


def unit_sum_loss(params: Any, y: jax.Array, target: jax.Array) -> jax.Array:
    """target · Σ y over the units: as `layer_loss`, for streams whose cotangents are too big."""
    del params
    return jnp.sum(y, axis=-1) * target


def character_loss(params: Any, y: jax.Array, target: jax.Array) -> jax.Array:
    """Cross-entropy in nats of a linear readout to the symbols."""
    logits = y @ params["readout"]["kernel"] + params["readout"]["bias"]
    return optax.softmax_cross_entropy_with_integer_labels(logits, target)


class Layer(NamedTuple):
    """One problem.

    Attributes:
      loss_fn: of one step or of all.
      params: float32.
      symbols: int32 [T, B], the inputs.
      targets: for `layer_loss` [T, B, H], for `unit_sum_loss` and `character_loss` [T, B].
    """

    loss_fn: Loss
    params: Any
    symbols: np.ndarray
    targets: np.ndarray

    @property
    def stream(self) -> artbp.Stream:
        return jax.device_put(artbp.Stream(self.symbols, self.targets))


def make_layer(loss_fn: Loss, hidden_size: int, num_steps: int, batch: int) -> Layer:
    """Random data and weights, the same in every process."""
    keys = jax.random.split(jax.random.key(0), 4)
    params: dict[str, Any] = {"cell": cells.lstm.init(keys[0], SYMBOLS, hidden_size)}
    shape = (num_steps, batch)
    if loss_fn is character_loss:
        kernel = 0.05 * jax.random.normal(keys[1], (hidden_size, SYMBOLS))
        params["readout"] = {"kernel": kernel, "bias": jnp.zeros(SYMBOLS)}
        targets = jax.random.randint(keys[2], shape, 0, SYMBOLS)
    else:
        units = (hidden_size,) if loss_fn is layer_loss else ()
        targets = jax.random.normal(keys[2], (*shape, *units))
    symbols = jax.random.randint(keys[3], shape, 0, SYMBOLS)
    return Layer(loss_fn, params, np.asarray(symbols), np.asarray(targets))


def initial_carry(params: Any, batch: int) -> Any:
    """Zeros in the dtype of the weights."""
    return cells.lstm.initial_carry(params["cell"], batch)


def next_gradient(
    estimator: artbp.GradientEstimator, layer: Layer, params: Any, carry: Any, jit: bool = True
) -> Callable[[], Any]:
    """A contender: the gradient of the next segment of the layer's stream at frozen params.

    Args:
      jit: as one compiled program, to which the state is donated.
    """
    estimate = jax.jit(estimator.estimate, donate_argnums=1) if jit else estimator.estimate
    params, stream = jax.device_put(params), layer.stream
    state = estimator.init(params, carry, rng_key=jax.random.key(0))

    def run() -> Any:
        nonlocal state
        grads, state, _ = estimate(params, state, stream)
        return grads

    return run


def gates_of(law: artbp.truncation.TruncationLaw, lengths: Iterable[int]) -> np.ndarray:
    """The gates [T] of segments of these lengths: 1/(1 − c) within, 0 at each boundary."""
    gates = []
    for length in lengths:
        within = np.asarray(law.compensation(jnp.arange(1, length)), np.float64)
        gates.append(np.append(within, 0.0))
    return np.concatenate(gates)


def reference_gradient(layer: Layer, gates: np.ndarray | None = None) -> Any:
    """The gradient of the summed losses in float64, by autodiff of the gated unroll."""
    wide = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), layer.params)
    targets = layer.targets
    if np.issubdtype(targets.dtype, np.floating):
        targets = targets.astype(np.float64)

    def total(params: Any, symbols: Any, targets: Any, gates: Any) -> jax.Array:
        carry = initial_carry(params, symbols.shape[1])
        _, ys = artbp.unroll(own_lstm, params, carry, symbols, gates=gates, checkpoint=True)
        return jnp.sum(layer.loss_fn(params, ys, targets))

    with jax.enable_x64(True):
        return jax.device_get(jax.jit(jax.grad(total))(wide, layer.symbols, targets, gates))


def relative_errors(gradient: Any, reference: Any) -> dict[str, float]:
    """‖gradient − reference‖ / ‖reference‖ of each leaf of the reference."""
    errors = {}
    leaves, structure = jax.tree_util.tree_flatten_with_path(reference)
    given = structure.flatten_up_to(jax.device_get(gradient))
    for (path, exact), leaf in zip(leaves, given, strict=True):
        difference = np.asarray(leaf, np.float64) - exact
        name = jax.tree_util.keystr(path, simple=True, separator=".")
        errors[name] = float(np.linalg.norm(difference) / np.linalg.norm(exact))
    return errors


def checked_error(name: str, gradient: Any, reference: Any, limit: float = 1e-4) -> float:
    """The largest relative error of a leaf; a wrong contender ends the benchmark, untimed."""
    error = max(relative_errors(gradient, reference).values())
    if not error < limit:
        raise RuntimeError(f"{name}: the gradient is off by {error:.2g}, so it is not timed.")
    return error
