"""RTRL in linear cost, for cells without connections between units."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from artbp import _tree
from artbp.estimators.base import GradientEstimator
from artbp.estimators.online import Sensitivity, StepDerivatives, online
from artbp.unrolls.readout import LossFn


class Traces(NamedTuple):
    """ds_i/dθ of one layer, for the unit i that an entry of θ belongs to. N leaves in the carry."""

    units: Any  # like params["units"], `[N, B, H]`
    input: jax.Array  # of W, `[N, B, D, K, H]`
    bias: jax.Array  # of b, `[N, B, K, H]`


def diagonal_rtrl(
    cell: Any,
    loss_fn: LossFn,
    *,
    update_every: int = 1,
    normalizer: float = 1.0,
) -> GradientEstimator:
    """RTRL of a diagonal cell: exact and online, at a cost and memory that are linear in its size.

        J_t = (∂s_t/∂s_{t−1}) J_{t−1} + ∂s_t/∂θ,    g_t = ∂ℓ_t/∂θ + J_{t−1}ᵀ ∂ℓ_t/∂s_{t−1}

    As s_i depends on the parameters of unit i only, J has one number for each parameter (for each
    leaf of the carry and each row), where RTRL has one for each parameter and unit. The
    gradients of a pass with frozen params sum to the gradient of `artbp.bptt`, for one layer.

    For a stack of layers (`artbp.cells.diagonal_stack`) the gradient of the top layer is exact.
    That of a lower layer omits the effect of its parameters, at earlier steps, on the states of
    the layers above it, and is therefore biased.

    Args:
      cell: `artbp.cells.lru`, `artbp.cells.elementwise_lstm`, another cell of
        `artbp.cells.diagonal_cell`, or a stack of them; `with_params` is allowed.
      loss_fn, normalizer: as for `artbp.rtrl`.
      update_every: steps per estimate; the last estimate of a pass may have fewer.

    Raises:
      TypeError: the cell is not diagonal.
      ValueError: update_every is not an integer ≥ 1; otherwise as `artbp.rtrl`.

    Source: Zucchet et al., "Online Learning of Long-Range Dependencies" (arXiv 2305.15947) for
    linear recurrences and stacks; Irie, Gopalakrishnan & Schmidhuber (arXiv 2305.19044) for the
    element-wise LSTM.
    """
    if not hasattr(cell, "split_carry"):
        raise TypeError(
            f"cell is {cell!r}; expected a cell of artbp.cells.diagonal_cell, such as "
            "artbp.cells.lru, or a stack of them. Use artbp.rtrl, whose cost is that of a full "
            "influence matrix, for other cells."
        )

    def zero(params: Any, floats: Any) -> list[Traces]:
        traces = []
        layers, carries = cell.layers(params), cell.split_carry(floats)
        for (_, own), carry in zip(layers, carries, strict=True):
            leaves = jax.tree.leaves(carry)
            dtype = _tree.at_least_float32(leaves[0].dtype)
            like = jnp.zeros((len(leaves), *leaves[0].shape), dtype)
            (*rows, hidden_size), (inputs, columns) = like.shape, own["input"].shape
            blocks = (columns // hidden_size, hidden_size)
            traces.append(
                Traces(
                    units=jax.tree.map(jnp.zeros_like, dict.fromkeys(own["units"], like)),
                    input=jnp.zeros((*rows, inputs, *blocks), like.dtype),
                    bias=jnp.zeros((*rows, *blocks), like.dtype),
                )
            )
        return traces

    def gradient(params: Any, traces: list[Traces], cotangent: Any) -> Any:
        layers, back = jax.vjp(lambda params: [own for _, own in cell.layers(params)], params)
        grads = []
        for own, of_layer, carry in zip(layers, traces, cell.split_carry(cotangent), strict=True):
            delta = jnp.stack(jax.tree.leaves(carry))

            def sums(trace: jax.Array, delta: jax.Array = delta) -> jax.Array:
                """Over the carry's leaves and over rows."""
                factor = delta.reshape(*delta.shape[:2], *[1] * (trace.ndim - 3), -1)
                return jnp.sum(factor * trace, axis=(0, 1))

            found = {
                "units": jax.tree.map(sums, of_layer.units),
                "input": sums(of_layer.input).reshape(own["input"].shape),
                "bias": sums(of_layer.bias).reshape(-1),
            }
            zeros = _tree.zeros_like(own)
            grads.append(zeros | {name: found[name] for name in found if name in own})
        return back(_tree.astype(grads, layers))[0]

    def update(
        traces: list[Traces], derivatives: StepDerivatives, t: jax.Array, rng_key: jax.Array
    ) -> list[Traces]:
        del t, rng_key
        x, new = derivatives.x, []
        layers, carries = cell.layers(derivatives.params), cell.split_carry(derivatives.entering)
        cuts = cell.split_carry(derivatives.is_replaced())
        for (layer, own), carry, cut, of_layer in zip(layers, carries, cuts, traces, strict=True):
            is_cut = jnp.stack(jax.tree.leaves(cut))  # [N, B]

            def without_cut(trace: jax.Array, is_cut: jax.Array = is_cut) -> jax.Array:
                return jnp.where(_tree.align(is_cut, trace), 0, trace)

            new.append(_advance(layer, own, carry, x, jax.tree.map(without_cut, of_layer)))
            _, x = layer.apply(own, carry, x)
        return new

    return online(cell, loss_fn, Sensitivity(zero, gradient, update), update_every, normalizer)


def _advance(layer: Any, own: Any, carry: Any, x: jax.Array, traces: Traces) -> Traces:
    """The traces of one layer after a step on the carry that entered it."""
    shape = jax.tree.leaves(carry)[0].shape
    units, carry, z = layer.step_arguments(own, carry, x)
    inputs = (jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, shape), units), carry, z)
    leaves, treedef = jax.tree.flatten(inputs)

    def along(index: int) -> jax.Array:
        """∂s'_i/∂(entry i of this leaf), `[N, B, H]`: units are independent, so ones will do."""
        tangents = [jnp.ones_like(x) if n == index else jnp.zeros_like(x) for n, x in by_index]
        _, tangent = jax.jvp(layer.step, inputs, treedef.unflatten(tangents))
        return jnp.stack(jax.tree.leaves(tangent))

    by_index = list(enumerate(leaves))
    of_units, of_carry, of_z = (
        [along(n) for n in jax.tree.leaves(part)] for part in treedef.unflatten(range(len(leaves)))
    )
    transition = jnp.stack(of_carry, axis=1)  # [N, N, B, H]

    def carried(trace: jax.Array) -> jax.Array:
        """The transition times a trace `[N, B, ..., H]`."""
        return jnp.einsum("mnbh,nb...h->mb...h", transition, trace)

    direct = jnp.stack(of_z, axis=2)  # [N, B, K, H]
    if jnp.issubdtype(x.dtype, jnp.integer):
        x = jax.nn.one_hot(x.astype(jnp.int32), own["input"].shape[0], dtype=direct.dtype)
    of_weights = direct[:, :, None] * x.astype(direct.dtype)[None, :, :, None, None]
    direct_units = jax.tree.unflatten(jax.tree.structure(own["units"]), of_units)
    new = Traces(
        units=jax.tree.map(lambda trace, d: carried(trace) + d, traces.units, direct_units),
        input=carried(traces.input) + of_weights,
        bias=carried(traces.bias) + direct,
    )
    return _tree.astype(new, traces)
