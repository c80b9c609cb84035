"""`unroll` for reverse mode, with a hand-written backward pass: faster and in less memory."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from artbp import _tree
from artbp.unrolls import recursion
from artbp.unrolls.arguments import Arguments, check_arguments, first_step
from artbp.unrolls.autodiff_recurrence import recurrence_of
from artbp.unrolls.checks import Cell, check_params
from artbp.unrolls.closure import hoist_cell
from artbp.unrolls.recurrence import CHUNK, Chunk, Recurrence


def fused_unroll(
    cell: Cell,
    params: Any,
    carry: Any,
    xs: Any,
    *,
    gates: jax.Array | None = None,
    resets: jax.Array | None = None,
    initial_carry: Any = None,
    lengths: jax.Array | None = None,
    reverse: bool = False,
) -> tuple[Any, Any]:
    """`artbp.unroll` for reverse mode: the same values and gradients, by a hand-written pass.

    Differentiating a scan stores every intermediate value of its steps (12 floats per unit of an
    LSTM), and adds to the gradient of the weights at every step. Here the products with the inputs
    are computed before the loop and the gradient of the weights after it, as large products, and
    fewer residuals are stored (5 floats per unit of an LSTM).

    It has no forward mode (`jax.jvp`, `jax.linearize`): use `artbp.unroll` there. Forward over
    reverse, as in Hessian-vector products, works. The cell must not close over traced arrays: pass
    them in `params`.

    Args:
      cell: as for `artbp.unroll`. Those of `artbp.cells`, also `with_params`, have a backward pass
        written by hand. For any other cell one is derived (`artbp.unrolls.autodiff_recurrence`),
        which runs the forward pass twice and stores one carry a step.
      params, carry, xs, gates, resets, initial_carry, lengths, reverse: as for `artbp.unroll`. In
        reverse, xs and ys are copied once, with lengths row by row: what rows share must not have B
        entries.

    Returns:
      (carry after the last step, ys `[T, ...]`).

    Raises:
      ValueError, TypeError: as `artbp.unroll`; ValueError too for a cell that closes over tracers,
        TypeError for params that are not floats.
    """
    if jax.tree.leaves(params):
        check_params(params)
    params, xs = _tree.as_arrays((params, xs))
    arguments = Arguments(params, carry, xs, gates, resets, initial_carry, lengths)
    arguments, _ = check_arguments(cell, arguments)
    obstacle = obstacle_to_fusion(cell, params, arguments.carry, xs)
    if obstacle is not None:
        raise ValueError(f"{obstacle} Use artbp.unroll.")
    if not reverse:
        return _fused(cell, arguments)
    lengths = arguments.lengths
    if lengths is not None:
        y = jax.eval_shape(cell, params, arguments.carry, _tree.index(arguments.xs, 0))[1]
        of_step = jax.tree.map(lambda leaf: leaf[0], xs), y
        if any(leaf.shape[:1] != lengths.shape for leaf in jax.tree.leaves(of_step)):
            raise ValueError(
                "fused_unroll got reverse=True, lengths, and an array without rows in xs or in the "
                "output of the cell; expected [B, ...] at each step, because the rows begin at "
                "different steps. Or use artbp.unroll."
            )
    flipped = _flip((arguments.xs, arguments.gates, arguments.resets), lengths)
    arguments = arguments._replace(xs=flipped[0], gates=flipped[1], resets=flipped[2])
    carry, ys = _fused(cell, arguments)
    return carry, _flip(ys, lengths)


def _flip(tree: Any, lengths: jax.Array | None) -> Any:
    """Arrays in reverse order of time, each row within its length."""

    def of_leaf(leaf: jax.Array) -> jax.Array:
        if lengths is None:
            return leaf[::-1]
        t, end = jnp.arange(leaf.shape[0], dtype=lengths.dtype)[:, None], lengths[None, :]
        steps = jnp.where(t < end, end - 1 - t, t)
        return leaf[steps] if leaf.ndim == 1 else leaf[steps, jnp.arange(lengths.shape[0])]

    return jax.tree.map(of_leaf, tree)


def obstacle_to_fusion(cell: Cell, params: Any, carry: Any, xs: Any) -> str | None:
    """The reason why `fused_unroll` refuses a cell with these arguments; None if it accepts it.

    Raises:
      ValueError: a cell with a hand-written recurrence closes over traced arrays.
    """
    leaves = jax.tree.leaves(xs)
    if not leaves or not leaves[0].shape[0]:
        return "fused_unroll needs inputs of at least one step."
    _, constants = hoist_cell(cell, params, carry, _tree.index(xs, 0))
    if any(isinstance(constant, jax.core.Tracer) for constant in constants):
        return (
            "The cell closes over a traced array, for which fused_unroll would return no gradient. "
            "Pass it to the cell in params, or in the carry, as a leaf that the cell returns "
            "unchanged."
        )
    return None


class _Steps(NamedTuple):
    """Consecutive steps [C, ...], or N pieces of C steps [N, C, ...]."""

    t: jax.Array
    xs: Any
    gates: jax.Array | None
    resets: jax.Array | None


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _fused(cell: Cell, arguments: Arguments) -> tuple[Any, Any]:
    return _forward(cell, arguments)[0]


def _forward(cell: Cell, arguments: Arguments) -> tuple[tuple[Any, Any], Any]:
    """((final carry, ys), (arguments, residuals of the full pieces, residuals of the rest))."""
    carry, initial_carry, lengths = arguments.carry, arguments.initial_carry, arguments.lengths
    first, _ = first_step(carry, arguments.xs, arguments.resets, initial_carry, lengths)
    recurrence, full, rest = _split_steps(cell, arguments)

    def run_step(carry: Any, inputs: tuple[Any, ...]) -> tuple[Any, tuple[Any, Any]]:
        t, u, reset = inputs
        entering = carry if reset is None else _tree.replace(reset, initial_carry, carry)
        if lengths is not None:
            entering = _tree.select(t < lengths, entering, first)
        new_carry, y, residuals = recurrence.step(entering, u)
        if lengths is not None:
            old = (carry, _tree.zeros_like(y))
            new_carry, y = _tree.select(t < lengths, (new_carry, y), old)
        return new_carry, (y, residuals)

    def run_piece(carry: Any, piece: _Steps) -> tuple[Any, tuple[Any, Any]]:
        steps = (piece.t, recurrence.project(piece.xs), piece.resets)
        leaving, (ys, residuals) = lax.scan(run_step, carry, steps)
        return leaving, (ys, (carry, residuals))

    carry, (ys, of_full) = lax.scan(run_piece, carry, full)
    carry, (last_ys, of_rest) = run_piece(carry, rest)
    return (carry, _join(ys, last_ys)), (arguments, of_full, of_rest)


def _backward(cell: Cell, saved: Any, cotangents: tuple[Any, Any]) -> tuple[Arguments]:
    arguments, of_full, of_rest = saved
    lengths = arguments.lengths
    recurrence, full, rest = _split_steps(cell, arguments)
    flow, y_cotangents = map(_without_float0, cotangents)

    def piece_backward(state: tuple[Any, Any, Any], inputs: Any) -> tuple[Any, Any]:
        flow, to_initial, sums = state
        piece, (entering, residuals), y_cotangents = inputs
        chunk = Chunk(entering, residuals, piece.xs, piece.resets, arguments.initial_carry)
        _, local = recurrence.linearize(chunk)
        taken = None if lengths is None else piece.t[:, None] < lengths[None, :]

        def pull_back(j: Any, flow: Any) -> tuple[Any, Any]:
            cotangents = (flow, _tree.index(y_cotangents, j))
            if taken is not None:  # rows may interact in the cell: an ended one must send nothing
                cotangents = _tree.select(taken[j], cotangents, _tree.zeros_like(cotangents))
            return recurrence.pull_back(_tree.index(local, j), *cotangents)

        def collect(collected: Any, j: Any, delta: Any, entering: Any) -> Any:
            deltas, to_initial = collected
            if piece.resets is not None:
                reset = piece.resets[j] if taken is None else piece.resets[j] & taken[j]
                fresh = _tree.where_given(to_initial, entering)
                fresh = _tree.select(reset, fresh, _tree.zeros_like(fresh))
                to_initial = _tree.accumulate(to_initial, fresh)
            return recursion.store(deltas, j, delta, entering), to_initial

        delta = jax.eval_shape(lambda: pull_back(0, flow)[0])
        deltas = _tree.repeat(jax.tree.map(_tree.zeros, delta), len(piece.t))
        flow, (deltas, to_initial) = recursion.backpropagate(
            pull_back,
            collect,
            flow,
            (deltas, to_initial),
            count=len(piece.t),
            gates=piece.gates,
            resets=piece.resets,
            initial_carry=arguments.initial_carry,
            taken=taken,
        )
        sums = recurrence.accumulate(sums, local, piece.xs, deltas)
        x_gradient = recurrence.input_gradient(local, piece.xs, deltas)
        if lengths is not None:
            x_gradient = _within(lengths, piece.t, x_gradient, _tree.zeros_like(x_gradient))
        return (flow, to_initial, sums), x_gradient

    initial = _tree.partition(arguments.initial_carry)[0]
    to_initial = _tree.zero_sums(initial)
    state = (flow, to_initial, recurrence.zero_sums())
    full_y, rest_y = _split(y_cotangents)
    state, last_x_gradient = piece_backward(state, (rest, of_rest, rest_y))
    state, x_gradient = lax.scan(piece_backward, state, (full, of_full, full_y), reverse=True)
    flow, to_initial, sums = state
    params = arguments.params
    gradient = Arguments(
        params=jax.tree.map(lambda g, p: g.astype(p.dtype), recurrence.gradient(sums), params),
        carry=flow,
        xs=_join(x_gradient, last_x_gradient),
        gates=None,
        resets=None,
        initial_carry=None if arguments.resets is None else _tree.astype(to_initial, initial),
        lengths=None,
    )
    return (gradient,)


_fused.defvjp(_forward, _backward)


def _split_steps(cell: Cell, arguments: Arguments) -> tuple[Recurrence, _Steps, _Steps]:
    """(the recurrence, the steps in full pieces [N, C, ...], the rest of 1 to C steps)."""
    xs, first_x = arguments.xs, _tree.index(arguments.xs, 0)
    recurrence = recurrence_of(cell, arguments.params, arguments.carry, first_x)
    t = jnp.arange(jax.tree.leaves(xs)[0].shape[0], dtype=jnp.int32)
    if arguments.lengths is not None:  # beyond them the first input, see `arguments.first_step`
        _, first_x = first_step((), xs, None, None, arguments.lengths)
        xs = _within(arguments.lengths, t, xs, jax.tree.map(lambda x: x[None], first_x))
    return recurrence, *_split(_Steps(t, xs, arguments.gates, arguments.resets))


def _within(lengths: jax.Array, t: jax.Array, new: Any, old: Any) -> Any:
    """`new` `[C, ...]` in the steps t `[C]` that a row takes, `old` beyond its length."""
    old = jax.tree.map(lambda x, y: jnp.broadcast_to(x, y.shape), old, new)
    return jax.vmap(_tree.select)(t[:, None] < lengths[None, :], new, old)


def _split(tree: Any) -> tuple[Any, Any]:
    """Arrays [T, ...] as pieces [N, C, ...] and a rest of 1 to C steps."""

    def full(leaf: jax.Array) -> jax.Array:
        num_pieces = (leaf.shape[0] - 1) // CHUNK
        return leaf[: num_pieces * CHUNK].reshape(num_pieces, CHUNK, *leaf.shape[1:])

    def rest(leaf: jax.Array) -> jax.Array:
        return leaf[(leaf.shape[0] - 1) // CHUNK * CHUNK :]

    return jax.tree.map(full, tree), jax.tree.map(rest, tree)


def _join(full: Any, rest: Any) -> Any:
    """The inverse of `_split`."""
    return jax.tree.map(lambda f, r: jnp.concatenate([f.reshape(-1, *f.shape[2:]), r]), full, rest)


def _without_float0(tree: Any) -> Any:
    """A cotangent with None in place of the leaves that are not differentiable."""
    return jax.tree.map(lambda leaf: None if leaf.dtype == jax.dtypes.float0 else leaf, tree)
