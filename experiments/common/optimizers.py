"""An optax optimiser by name, with optional clipping; and learning rates that follow time steps."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from experiments.common.errors import ConfigError

OPTIMIZERS = (
    *("sgd", "adam", "adamw", "adabelief", "adagrad"),
    *("lamb", "lion", "nadam", "radam", "rmsprop"),
)
CLIPPING_HELP = (
    "Clipping biases a random gradient: the mean of clipped gradients is not the clipped mean, so "
    "ARTBP is no longer unbiased. The gradient of a segment is a sum over its steps, so that "
    "clipping hits the long segments, which carry the long dependencies, most."
)


def make_optimizer(
    name: str,
    *,
    learning_rate: float,
    options: Mapping[str, Any] | None = None,
    clip_value: float | None = None,
    clip_norm: float | None = None,
) -> optax.GradientTransformation:
    """`optax.NAME(learning_rate, **options)`, applied to the gradient after clipping.

    Args:
        name: one of `OPTIMIZERS`.
        learning_rate: of each update, that is of each segment.
        options: further arguments of the optimiser, such as {"b2": 0.99}.
        clip_value: clips each entry of the gradient to [-clip_value, clip_value].
        clip_norm: scales a gradient whose global norm exceeds clip_norm down to it. Both ways of
            clipping bias a random gradient: see `CLIPPING_HELP`.

    Raises:
        ConfigError: a name, an option or a number that cannot be used, or both ways of clipping.
    """
    if name not in OPTIMIZERS:
        raise ConfigError(f"optimizer {name!r}: expected one of {', '.join(OPTIMIZERS)}.")
    if clip_value is not None and clip_norm is not None:
        raise ConfigError("clip_value and clip_norm were both given: choose one way of clipping.")
    given = {"learning_rate": learning_rate, "clip_value": clip_value, "clip_norm": clip_norm}
    for field, value in given.items():
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        may_be_none = field != "learning_rate" and value is None
        if not may_be_none and not (is_number and 0 < value < math.inf):
            raise ConfigError(f"{field} is {value!r}: expected a finite positive number.")
    try:
        optimizer = getattr(optax, name)(learning_rate, **(options or {}))
        # optax looks at the values of most options in the first update only.
        jax.eval_shape(lambda p: optimizer.update(p, optimizer.init(p), p), jnp.zeros(1))
    except (TypeError, ValueError, AttributeError) as error:
        raise ConfigError(
            f"optax.{name} does not take the options {dict(options or {})}: {error}"
        ) from error
    if clip_value is not None:
        return optax.chain(optax.clip(clip_value), optimizer)
    if clip_norm is not None:
        return optax.chain(optax.clip_by_global_norm(clip_norm), optimizer)
    return optimizer


def rate_by_time_step(rate: Callable[[Any], Any]) -> optax.GradientTransformationExtraArgs:
    """updates ← −rate(t) · updates, where t is the time step that the update comes after.

    optax counts updates instead, of which ARTBP makes as many as it draws segments. `train_whole`
    passes `time_step` to the optimiser.
    """

    def update(updates: Any, state: Any, params: Any = None, **extra: Any) -> tuple[Any, Any]:
        del params
        factor = -rate(extra["time_step"])
        return jax.tree.map(lambda u: (factor * u).astype(u.dtype), updates), state

    return optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)
