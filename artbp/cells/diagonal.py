"""Cells without connections between units: h_i' depends on h_i and on the input only.

    z = x W + b,    s' = step(units, s, z), unit by unit,    y = output(params, s', x)

Two algorithms need this form: `artbp.diagonal_rtrl`, and for linear steps
`artbp.associative_unroll`.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from artbp import _tree
from artbp.cells.base import ReferenceCell, input_product


@dataclasses.dataclass(frozen=True, kw_only=True)
class DiagonalCell(ReferenceCell):
    """A `ReferenceCell` without connections between units; made by `diagonal_cell`.

    Attributes:
      step: `step(units, carry, z) -> carry`, element by element: z is a tuple of arrays `[B, H]`,
        units is `params["units"]` with leaves `[1, H]`, and all leaves of the carry are `[B, H]`;
        all of them are float32 or wider.
      output: `output(params, carry, x) -> y`.
      decay: of a linear step, `decay(units) -> λ`, complex `[1, H]`: the carry is then a pair
        (real, imag), and as complex numbers s' = λ s + step(units, 0, z).
    """

    step: Callable[[Any, Any, Any], Any]
    output: Callable[[Any, Any, Any], Any]
    decay: Callable[[Any], jax.Array] | None = None

    def layers(self, params: Any) -> list[tuple["DiagonalCell", Any]]:
        """The one layer, with its own parameters."""
        return [(self, self._own(params))]

    @staticmethod
    def split_carry(carry: Any) -> list[Any]:
        """The carry of each layer."""
        return [carry]

    @staticmethod
    def step_arguments(own: Any, carry: Any, x: jax.Array) -> tuple[Any, Any, Any]:
        """(units, carry, z), as `step` takes them; integer x pick rows of W."""
        units, carry = _tree.widened((jax.tree.map(lambda leaf: leaf[None], own["units"]), carry))
        hidden_size = jax.tree.leaves(units)[0].shape[-1]
        z = input_product(own["input"], x)
        if "bias" in own:
            z = z + own["bias"].astype(z.dtype)[None]
        return units, carry, tuple(jnp.split(z, z.shape[-1] // hidden_size, axis=-1))


@dataclasses.dataclass(frozen=True, kw_only=True)
class DiagonalStack(ReferenceCell):
    """Diagonal cells, each on the outputs of the one below; made by `diagonal_stack`."""

    cells: tuple[DiagonalCell, ...]

    def layers(self, params: Any) -> list[tuple[DiagonalCell, Any]]:
        """Each layer, the lowest first, with its own parameters."""
        pairs = zip(self.cells, self._own(params), strict=True)
        return [layer for cell, own in pairs for layer in cell.layers(own)]

    @staticmethod
    def split_carry(carry: Any) -> list[Any]:
        """The carry of each layer."""
        return list(carry)


def diagonal_cell(
    step: Callable[[Any, Any, Any], Any],
    output: Callable[[Any, Any, Any], Any],
    init: Callable[..., Any],
    initial_carry: Callable[[Any, int], Any],
    decay: Callable[[Any], jax.Array] | None = None,
) -> DiagonalCell:
    """A cell from its parts, see `DiagonalCell`.

    params = {"input": W `[D, K H]`, "bias": b `[K H]` or absent, "units": {name: `[H]`}, "output":
    the parameters of the output}.
    """

    def apply(params: Any, carry: Any, x: jax.Array) -> tuple[Any, Any]:
        carry = _tree.astype(step(*DiagonalCell.step_arguments(params, carry, x)), carry)
        return carry, output(params, carry, x)

    return DiagonalCell(apply, init, initial_carry, step=step, output=output, decay=decay)


def diagonal_stack(cells: Sequence[DiagonalCell]) -> DiagonalStack:
    """Stacks diagonal cells, the lowest first: each takes the outputs of the one below as inputs.

    params and carry are tuples with an entry for each layer. `init(rng_key, input_size,
    hidden_size)` gives all layers the same number of units. Other options go to every layer.
    """
    cells = tuple(cells)

    def apply(params: Any, carry: Any, x: jax.Array) -> tuple[Any, Any]:
        carries = []
        for cell, own, one in zip(cells, params, carry, strict=True):
            new, x = cell(own, one, x)
            carries.append(new)
        return tuple(carries), x

    def init(rng_key: jax.Array, input_size: int, hidden_size: int, **options: Any) -> Any:
        keys = jax.random.split(rng_key, len(cells))
        output_size = options.get("output_size") or hidden_size
        sizes = [input_size, *[output_size] * (len(cells) - 1)]
        pairs = zip(cells, keys, sizes, strict=True)
        return tuple(cell.init(key, size, hidden_size, **options) for cell, key, size in pairs)

    def initial_carry(params: Any, batch_size: int) -> Any:
        pairs = zip(cells, params, strict=True)
        return tuple(cell.initial_carry(own, batch_size) for cell, own in pairs)

    return DiagonalStack(apply, init, initial_carry, cells=cells)
