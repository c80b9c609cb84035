"""The gradient of the losses of one window, through this window and a number of older windows.

    δ = 0
    for window in n, n − 1, …, n − A + 1:           # A windows, the new one included
        for t backward in window:
            δ = ∂ℓ_t/∂s_t + (∂F_{t+1}/∂s_t)ᵀ δ      # ℓ_t of window n only
        δ = gate_at(j) · δ                          # at the j-th edge back

A critic v predicts δ at an edge, the gradient that later losses send back over it. Then δ begins as
v(s) behind the new window, and v(s) at the first edge back, as it was predicted, is subtracted
there: what looks back further is the error of a prediction that has already been used.

All loops within a window have static lengths; only the number of windows is traced. `Stored` holds
what is kept of older windows: residuals of the last few, carries of more. Some carries from further
back, the anchors, make it possible to run any older window again.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from artbp import _tree
from artbp.stream import Stream
from artbp.unrolls.autodiff_recurrence import recurrence_of, residuals_like
from artbp.unrolls.checks import Cell
from artbp.unrolls.chunk import (
    BackwardState,
    Residuals,
    Segment,
    initial_state,
    make_residuals,
    num_chunks,
    segment_result,
)
from artbp.unrolls.functions import Functions, SegmentResult
from artbp.unrolls.gate import cut_or_scale
from artbp.unrolls.recurrence import CHUNK
from artbp.unrolls.window import run_window, window_backward


class Stored(NamedTuple):
    """What is kept of the windows of a pass that have been run.

    Attributes:
      num_windows: int32, their number. It is also the index n of the next window.
      residuals: R + 2 slots of one window each. The residuals of window n are in slot
        n mod (R + 1), so those of the next window replace none of the last R. The last slot is for
        a window that is run again. With R = 0 there is one slot.
      carries: `[C, ...]`, the carries that entered the last C windows, window n in slot n mod C.
      anchors: `[C, ...]`, the carries that entered windows 0, stride, 2·stride, ….
      stride: int32, a power of two. When the anchors are full, every second one is dropped and the
        stride doubles, so they always reach back to window 0.
      predicted: the critic's δ at the edge before the next window, like the differentiable leaves
        of the carry; () without a critic.
    """

    num_windows: jax.Array
    residuals: Residuals
    carries: Any
    anchors: Any
    stride: jax.Array
    predicted: Any = ()


class Critique(NamedTuple):
    """The critic's part in an estimate; both like the differentiable leaves of a carry.

    Attributes:
      target: δ of the carry that entered the new window, for which the last prediction was made.
      predicted: δ of the carry that left it, zero at the end of a sequence.
    """

    target: Any
    predicted: Any


class Sizes(NamedTuple):
    """The static sizes of a look-back.

    Attributes:
      length: K, the steps of a window.
      num_stored: R, the older windows whose residuals are kept; may be 0.
      num_carries: C, the older windows of which the carry that entered them is kept; even.
    """

    length: int
    num_stored: int
    num_carries: int

    @property
    def chunk_size(self) -> int:
        """The steps that are linearised together."""
        return min(CHUNK, self.length)

    @property
    def num_chunks(self) -> int:
        """The chunks of a slot for the residuals of one window."""
        return num_chunks(self.length, self.chunk_size)

    @property
    def spare(self) -> int:
        """The slot for the residuals of a window that is run again.

        If no residuals are stored, this is the only slot. It then holds the residuals of the new
        window, whose backward pass is done before an older window is run again.
        """
        return self.num_stored + 1 if self.num_stored else 0

    def slot(self, n: jax.Array) -> jax.Array:
        """The slot of window n."""
        return n % (self.num_stored + 1)


def make_stored(
    cell: Cell, params: Any, carry: Any, sizes: Sizes, *, has_critic: bool = False
) -> Stored:
    """Allocates the buffers, for the beginning of a stream."""
    of_step = residuals_like(cell, params, carry)
    num_steps = (sizes.spare + 1) * sizes.num_chunks * sizes.chunk_size
    carries, one = _tree.repeat(carry, sizes.num_carries), jnp.ones((), jnp.int32)
    return Stored(
        num_windows=one - 1,
        residuals=make_residuals(of_step, carry, num_steps, sizes.chunk_size),
        carries=carries,
        anchors=jax.tree.map(jnp.copy, carries),  # a donated state holds no buffer twice
        stride=one,
        predicted=_tree.zeros_like(_tree.partition(carry)[0]) if has_critic else (),
    )


def store_carry(stored: Stored, carry: Any, sizes: Sizes) -> Stored:
    """Stores the carry that entered the new window, and counts the window."""
    n, num_carries = stored.num_windows, sizes.num_carries
    # The first window of a pass drops the anchors of the pass before.
    stride = jnp.where(n == 0, 1, stored.stride)
    is_full = n == stride * num_carries

    def halve(anchors: Any) -> Any:
        return jax.tree.map(lambda leaf: jnp.concatenate([leaf[::2], leaf[::2]]), anchors)

    anchors = lax.cond(is_full, halve, lambda anchors: anchors, stored.anchors)
    stride = jnp.where(is_full, 2 * stride, stride)
    slot = n // stride
    anchor = _tree.select(n % stride == 0, carry, _tree.index(anchors, slot))
    return stored._replace(
        num_windows=n + 1,
        carries=_tree.update(stored.carries, carry, n % num_carries),
        anchors=_tree.update(anchors, anchor, slot),
        stride=stride,
    )


def first_window_run(stored: Stored, m: jax.Array, sizes: Sizes) -> jax.Array:
    """The window from which the carry that entered window m is computed: m, or an anchor's."""
    is_stored = stored.num_windows - m <= sizes.num_carries
    return jnp.where(is_stored, m, m // stored.stride * stored.stride)


def oldest_step(stored: Stored, position: jax.Array, look_back: jax.Array, sizes: Sizes) -> Any:
    """The first step that a look-back reads, as an index into the arrays of the stream.

    It is negative if the stream does not hold this step.
    """
    n = stored.num_windows
    first = first_window_run(stored, n - look_back + 1, sizes)
    return position - (n - first) * sizes.length


def look_back_gradient(
    functions_of: Callable[[Any], Functions],
    gate_at: Callable[[jax.Array], jax.Array],
    sizes: Sizes,
    constants: Any,
    params: Any,
    carry: Any,
    initial_carry: Any,
    stored: Stored,
    stream: Stream,
    position: jax.Array,
    num_steps: jax.Array,
    look_back: jax.Array,
    *,
    axis_names: tuple[Any, ...] = (),
) -> tuple[SegmentResult, Critique | None]:
    """The gradient of the losses of window n = `stored.num_windows`, through A windows.

    Args:
      functions_of, constants: as for `dynamic.segment_gradient`, without compensation.
      gate_at: the gate at the j-th edge back, j = 1, 2, …
      params: the weights in all products of the backward pass. The local derivatives are taken at
        the residuals, which may come from older params.
      carry: enters the new window.
      initial_carry: enters at resets.
      stream: holds all steps of the windows that are looked back to (see `oldest_step`).
      position: the step of the stream's arrays at which the new window begins.
      num_steps: of the new window: K, or fewer at the end of the stream.
      look_back: A, 1 ≤ A ≤ n + 1.
      axis_names: axes of enclosing `jax.vmap`s, with a look-back for each row. All rows then run
        the longest look-back, and the gate of a row is 0 beyond its own. `batching` sets this.

    Returns:
      (a `SegmentResult`, whose `scratch` is the new value of `stored.residuals`; the critic's
      target and prediction, None without a critic).
    """
    n, length = stored.num_windows, sizes.length
    functions = functions_of(constants)
    recurrence = recurrence_of(functions.cell, params, carry, _tree.index(stream.xs, 0))

    def longest(count: jax.Array) -> jax.Array:
        return lax.pmax(count, axis_names) if axis_names else count

    def window(start: jax.Array, num_steps: Any, is_padded: bool = False) -> Segment:
        return Segment(
            functions=functions,
            params=params,
            initial_carry=initial_carry,
            stream=stream,
            carry_like=carry,
            recurrence=recurrence,
            start=start,
            length=jnp.asarray(num_steps, jnp.int32),
            chunk_size=sizes.chunk_size,
            is_padded=is_padded,
        )

    # The new window. Only the last of a sequence can be shorter than K.
    count = min(length, stream.num_steps - stream.history)
    is_padded = stream.stop is not None or (stream.num_steps - stream.history) % count != 0
    new, place = window(position, num_steps, is_padded), sizes.slot(n) * sizes.num_chunks
    carry, residuals = run_window(new, carry, count, stored.residuals, place)
    state, critique, predicted = initial_state(new), None, None
    if functions.critic is not None:
        predicted = predict(functions.critic, params, carry)
        if stream.ends:  # no loss comes after the last step
            is_over = position + num_steps == stream.history + stream.num_new
            predicted = _tree.select(is_over, _tree.zeros_like(predicted), predicted)
        state = state._replace(flow=predicted)
    state = window_backward(new, residuals, count, place, state, reads_out=True)
    if functions.critic is not None:
        critique = Critique(state.flow, predicted)
        state = state._replace(flow=jax.tree.map(jnp.subtract, state.flow, stored.predicted))

    def run_again(m: jax.Array, carry: Any, residuals: Any = None) -> tuple[Any, Any]:
        """Runs window m with the present params, its residuals into the spare slot."""
        segment = window(position - (n - m) * length, length)
        return run_window(segment, carry, length, residuals, sizes.spare * sizes.num_chunks)

    def entering_window(m: jax.Array) -> Any:
        """The carry that entered window m. If it is not stored, it is computed from an anchor."""
        first = first_window_run(stored, m, sizes)
        near = _tree.index(stored.carries, m % sizes.num_carries)
        anchor = _tree.index(stored.anchors, m // stored.stride)
        carry = _tree.select(n - m <= sizes.num_carries, near, anchor)
        missing = m - first

        def one(i: jax.Array, carry: Any) -> Any:
            return _tree.select(i < missing, run_again(first + i, carry)[0], carry)

        return lax.fori_loop(0, longest(missing), one, carry)

    def older_window(j: jax.Array, loop: tuple[BackwardState, Residuals]) -> Any:
        state, residuals = loop
        m, is_taken = n - j, j < look_back
        gate = jnp.asarray(gate_at(j), state.max_weight.dtype)
        gate = jnp.where(is_taken, gate, jnp.zeros_like(gate))
        state = state._replace(
            flow=jax.tree.map(lambda leaf: cut_or_scale(leaf, gate), state.flow),
            max_compensation=jnp.maximum(state.max_compensation, gate),
            max_weight=state.max_weight * jnp.where(is_taken, gate, jnp.ones_like(gate)),
        )
        is_stored = j <= sizes.num_stored

        # A loop of at most one turn: under vmap, a cond would run both of its branches.
        def again(_: jax.Array, residuals: Residuals) -> Residuals:
            return run_again(m, entering_window(m), residuals)[1]

        residuals = lax.fori_loop(jnp.where(is_stored, 1, 0), 1, again, residuals)
        slot = jnp.where(is_stored, sizes.slot(m), sizes.spare)
        segment = window(position - j * length, length)
        place = slot * sizes.num_chunks
        return window_backward(segment, residuals, length, place, state, reads_out=False), residuals

    if stream.num_steps > length:  # else there are no older windows
        loop = state, residuals
        state, residuals = lax.fori_loop(1, longest(look_back), older_window, loop)
    return segment_result(new, state, carry, residuals), critique


def predict(critic: Callable[[Any, Any], Any], params: Any, carry: Any) -> Any:
    """The critic's δ of a carry, in the dtypes of its differentiable leaves."""
    predicted, like = critic(params, carry), _tree.partition(carry)[0]
    shapes, expected = (jax.tree.map(jnp.shape, tree) for tree in (predicted, carry))
    is_like = jax.tree.structure(predicted) == jax.tree.structure(carry)
    if not (is_like and shapes == expected):
        raise ValueError(
            f"critic returned arrays of shapes {shapes}; expected {expected}, in a tree like the "
            "carry: the derivative of later losses by each of its entries."
        )
    predicted = _tree.where_given(like, predicted)  # integers and keys have no derivative
    return _tree.astype(predicted, like)
