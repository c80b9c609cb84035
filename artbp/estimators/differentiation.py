"""The derivatives of a step for the online estimators, with errors that say what these need."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import jax

from artbp import _tree

FORWARD = (
    "rtrl, snap1, uoro and forward_gradient also differentiate the cell in forward mode (jax.jvp), "
    "and JAX cannot do this here. A jax.custom_vjp inside the cell has no derivative in forward "
    "mode: use jax.custom_jvp, or an estimator that needs reverse mode only (bptt, tbptt, "
    "tbptt_k1_k2, adaptive_tbptt, awd_lstm_bptt, artbp, random_truncation, unbiased_tbptt). "
    "truncated_es, pes, gpes and nres need no derivative."
)
REVERSE = (
    "rtrl, diagonal_rtrl, snap1, uoro and forward_gradient differentiate the cell and loss_fn in "
    "reverse mode (jax.vjp), and JAX cannot do this here. A jax.lax.while_loop, or a fori_loop of "
    "a length that is traced, has no derivative in reverse mode: use jax.lax.scan, or a fori_loop "
    "of a fixed length. The only estimators that need no derivative are truncated_es, pes, gpes "
    "and nres."
)


@contextmanager
def explained(need: str) -> Iterator[None]:
    """Raises a TypeError that begins with `need` where JAX cannot differentiate.

    The functions must have been traced without derivatives before, so that an error within is not
    one of their own.
    """
    try:
        yield
    except (TypeError, ValueError, NotImplementedError) as error:
        raise TypeError(f"{need} JAX says: {error}") from error


def product(function: Callable[..., Any], primals: Any, tangents: Any) -> Any:
    """The derivative of `function` times `tangents`, in forward mode."""

    def one(tangents: Any) -> Any:
        return jax.jvp(function, primals, tangents)[1]

    def batch(tangents: Any) -> Any:
        return jax.vmap(one)(_tree.repeat(tangents, 1))

    with explained(FORWARD):
        # JAX refuses a custom_vjp only where its product is batched or compiled.
        jax.eval_shape(batch, tangents)
        return one(tangents)
