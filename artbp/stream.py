"""The data of an estimator: a sequence with the targets of its losses."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from artbp import _tree
from artbp._checks import is_integer
from artbp.padding import without_padding, without_unused_rows


def _register(cls: Any) -> Any:
    """Registers a dataclass as a pytree that JAX rebuilds without the checks of its constructor.

    A check of values would wait for arrays on a device, or in every call of a jitted function.
    """
    fields = dataclasses.fields(cls)
    data = [field.name for field in fields if not field.metadata.get("static")]
    static = [field.name for field in fields if field.metadata.get("static")]

    def flatten_with_keys(node: Any) -> tuple[Any, Any]:
        keys = map(jax.tree_util.GetAttrKey, data)
        return list(zip(keys, flatten(node)[0], strict=True)), flatten(node)[1]

    def flatten(node: Any) -> tuple[Any, Any]:
        return [getattr(node, name) for name in data], tuple(getattr(node, name) for name in static)

    def unflatten(values: Any, leaves: Any) -> Any:
        node = object.__new__(cls)
        for name, value in zip([*data, *static], [*leaves, *values], strict=True):
            object.__setattr__(node, name, value)
        return node

    jax.tree_util.register_pytree_with_keys(cls, flatten_with_keys, unflatten, flatten)
    return cls


@_register
@dataclasses.dataclass(frozen=True)
class Stream:
    """A sequence of T time steps: inputs, targets, resets and mask.

    A frozen dataclass and a pytree: arrays may be NumPy or JAX, `num_steps` is static. Pass it to
    your jitted function as an argument. A function that closes over it copies its arrays into the
    compiled program. NumPy arrays are copied to the device in each call; where there is room, call
    `jax.device_put(stream)` once.

    Attributes:
      xs: inputs of the cell, any pytree of arrays `[T, ...]` (`[T, B, ...]` with a batch), or
        None for a cell without input. Randomness for the cell travels here too, as keys, which
        are the same in every pass; `artbp.with_keys` makes new ones. Or the cell splits a key in
        its carry, a lasting leaf.
      targets: what `loss_fn` compares with, any pytree of arrays `[T, ...]`, or None.
      resets: bool `[T]` or `[T, B]`. True where a new sequence begins: the carry that enters
        that step is the `initial_carry` of the estimator's `init`, by default zeros. Lasting leaves
        of the carry stay as they are (see `artbp.GradientEstimator`). A reset is no truncation.
        The true gradient does not cross it either (except through lasting leaves), so it adds no
        bias. A segment goes on through it.
      mask: `[T]` or `[T, B]`. Bool: False where a loss does not count. Float: weights ≥ 0 of the
        losses, which multiply loss and gradient; a weight of 0 means False. Targets that do not
        count may be NaN. The loss need not be finite or differentiable there, if `loss_fn` works
        for any number of rows. Danger: with `[T, B]`, the loss of a row must not depend on other
        rows. Inputs of a row that counts at no step may be NaN too: such entries of `xs` are
        replaced by 0, if `ends` and the mask is not traced by JAX. Other inputs have to be finite,
        as they enter the carry.
      num_steps: T, the number of time steps. Needed when `xs` is None, and checked against the
        arrays otherwise.
      ends: False if the sequence goes on in the next stream, as with data from a loader. The carry
        then goes on too. Such a stream must end where a segment or window of the estimator ends. If
        a window does not, `estimate` raises a ValueError. If a random segment does not, its
        gradient is NaN under the policy `dynamic` (the default on a CPU and in a jitted call); the
        other policies raise a ValueError. `artbp.stream_chunks` makes streams that fit.
      history: the number of steps at the beginning of the arrays that have been run already, in
        earlier streams. Estimates begin after them. A look-back may read them.
      lengths: for a padded batch, int `[B]`: the true number of steps of each row, from 0 to T. It
        is no attribute: the stream is made so that the steps from lengths[b] on have no effect. No
        loss of row b counts there (`mask`), the row begins anew at each of these steps (`resets`),
        and its entries of `xs` and `targets` are its first ones. So padding may hold
        anything, NaN too, and neither losses nor gradients depend on it. This holds for cells whose
        rows do not interact: batch normalisation mixes them. Cell and loss must be differentiable
        at `initial_carry`; if they are not at zeros, pass another one to `init`. A row's carry has
        no meaning from there on. Every leaf of the carry must be `[B, ...]`, except lasting leaves,
        which padding steps update as well. Every array of `xs` and `targets` must be
        `[T, B, ...]`, or `[T]` where all rows share it.
      stop: int32 scalar, the end of the steps to be run, as an index into the arrays. What follows
        is padding. None means all steps.

    Raises:
      TypeError: `ends` is neither True nor False.
      ValueError: no `num_steps` where `xs` is None; no steps; a history that is not below
        `num_steps`; `lengths` that do not fit the arrays; weights that are negative or not finite.
        `estimate` refuses arrays of different numbers of steps, and a `stop` out of range.
    """

    xs: Any
    targets: Any = None
    resets: Any = None
    mask: Any = None
    num_steps: int = dataclasses.field(default=None, metadata={"static": True})  # type: ignore
    ends: bool = dataclasses.field(default=True, metadata={"static": True}, kw_only=True)
    history: int = dataclasses.field(default=0, metadata={"static": True}, kw_only=True)
    stop: Any = dataclasses.field(default=None, kw_only=True)
    lengths: dataclasses.InitVar[Any] = dataclasses.field(default=None, kw_only=True)

    @property
    def num_new(self) -> Any:
        """The number of steps to run: those after the history and before the padding."""
        return (self.num_steps if self.stop is None else self.stop) - self.history

    def __post_init__(self, lengths: Any):
        leaves = jax.tree.leaves((self.xs, self.targets, self.resets, self.mask))
        if not all(hasattr(leaf, "shape") for leaf in leaves):
            return  # A tree of axes for `jax.vmap`, or of shardings.
        if self.num_steps is None:
            if not jax.tree.leaves(self.xs):
                raise ValueError("Stream got no xs. Pass num_steps=T, the number of time steps.")
            first = jax.tree.leaves(self.xs)[0]
            if not first.shape:
                raise ValueError(
                    "Stream got a scalar in xs; expected arrays of shape [T, ...]. A list is a "
                    "tree of its entries: pass numpy.asarray(xs)."
                )
            object.__setattr__(self, "num_steps", int(first.shape[0]))
        if not is_integer(self.num_steps):
            raise ValueError(
                f"num_steps must be an integer, got {self.num_steps!r}; expected T, the number of "
                "time steps. Leave it out where xs has arrays."
            )
        if not isinstance(self.ends, (bool, np.bool_)):
            raise TypeError(f"Stream.ends is {self.ends!r}; expected True or False.")
        if not is_integer(self.history):
            raise ValueError(
                f"history={self.history!r}; expected an integer ≥ 0, the number of steps that have "
                "been run already. Leave it out, or pass 0."
            )
        object.__setattr__(self, "history", int(self.history))
        object.__setattr__(self, "num_steps", int(self.num_steps))
        if not 1 <= self.num_steps < 2**31:
            expected = "at least one time step and fewer than 2³¹"
            raise ValueError(f"A stream needs {expected}; got {self.num_steps}.")
        if not 0 <= self.history < self.num_steps:
            raise ValueError(
                f"history={self.history} of num_steps={self.num_steps}; expected 0 ≤ history < "
                "num_steps: a stream has steps that have not been run yet."
            )
        if lengths is not None:
            for name, value in without_padding(self, lengths).items():
                object.__setattr__(self, name, value)
        _check_weights(self.mask)
        if self.ends:
            object.__setattr__(self, "xs", without_unused_rows(self.xs, self.mask))

    def check_num_steps(self) -> None:
        """Raises ValueError unless every array has `num_steps` as its first axis.

        Called by `checks.check_stream`, not on construction: for `jax.vmap`, arrays have one more
        axis.
        """
        for name in ("xs", "targets", "resets", "mask"):
            for path, leaf in jax.tree_util.tree_leaves_with_path(getattr(self, name)):
                shape = np.shape(leaf)
                if not shape or shape[0] != self.num_steps:
                    raise ValueError(
                        f"Stream.{name}{jax.tree_util.keystr(path)} has shape {shape}; expected "
                        f"[T, ...], time first, with T = num_steps = {self.num_steps}."
                    )
        self.check_stop()

    def check_stop(self) -> None:
        """Raises ValueError unless `stop` is None or one integer, in range where it is known."""
        if self.stop is None:
            return
        is_traced = isinstance(self.stop, jax.core.Tracer)
        is_whole = is_integer(self.stop)
        if is_traced:
            is_whole = jnp.issubdtype(self.stop.dtype, jnp.integer)
        if np.ndim(self.stop) or not is_whole:
            raise ValueError(
                f"Stream.stop is {self.stop!r}; expected an integer, history < stop ≤ num_steps, "
                "or None for all steps."
            )
        if not is_traced and not self.history < int(self.stop) <= self.num_steps:
            raise ValueError(
                f"Stream.stop is {self.stop}; expected history = {self.history} < stop ≤ num_steps "
                f"= {self.num_steps}."
            )


@_register
@dataclasses.dataclass(frozen=True)
class RowsOfDevice(Stream):
    """Some rows of a stream whose rows are split over devices, see `artbp.data_parallel`.

    Attributes:
      num_rows: the number of these rows. A step must have as many losses.
    """

    num_rows: int = dataclasses.field(metadata={"static": True}, kw_only=True)


def _check_weights(mask: Any) -> None:
    """Raises ValueError if a float mask whose values are known has one that is no weight."""
    if not _tree.is_known(mask) or not jnp.issubdtype(mask.dtype, jnp.floating):
        return
    weights = np.asarray(mask)
    wrong = ~((weights >= 0) & (weights < np.inf))
    if wrong.any():
        raise ValueError(
            f"Stream.mask has the weight {weights[wrong][0]} at {np.argwhere(wrong)[0].tolist()}; "
            "expected finite weights ≥ 0 of the losses. A weight of 0 leaves a loss out."
        )


def new_steps(stream: Stream, first: int, count: int) -> Stream:
    """`count` of the steps to run as a stream of their own; `first` counts from its history on.

    Sliced on the host, where the stream may be NumPy arrays larger than the device.
    """
    steps = slice(stream.history + first, stream.history + first + count)
    fields = (stream.xs, stream.targets, stream.resets, stream.mask)
    ends = stream.ends and first + count == int(stream.num_new)
    return Stream(*jax.tree.map(lambda leaf: leaf[steps], fields), num_steps=count, ends=ends)


def steps_to_run(stream: Stream) -> Stream:
    """The steps after the history and before the padding, as a stream of their own.

    Raises:
      ValueError: a `stop` that JAX traces, on which shapes would depend.
    """
    if not stream.history and stream.stop is None:
        return stream
    if isinstance(stream.stop, jax.core.Tracer):
        raise ValueError(
            "Stream.stop is traced by JAX; expected a number, because the number of steps to run "
            "gives shapes of arrays. Call this outside of jax.jit, or pass a stream of these steps "
            "alone, without stop."
        )
    return new_steps(stream, 0, int(stream.num_new))
