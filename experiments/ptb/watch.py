"""Bias and noise of truncated gradients, measured beside a run: one row of metrics each time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax

import artbp
from artbp.diagnostics import shadow
from experiments.common.errors import ConfigError
from experiments.common.session import Measure
from experiments.ptb.model import CharacterModel


def make_measure(config: Any, model: CharacterModel) -> Measure | None:
    """What `config.shadow` describes, for `train(measure=…)`; None where it is off.

    The draws of a measurement depend on the seed and the number of updates alone, and are not
    those of the training.

    Raises:
        ConfigError: numbers that `artbp.diagnostics.shadow` or the truncation law refuses.
    """
    given = config.shadow
    if given.every < 0:
        raise ConfigError(f"shadow.every is {given.every}: expected updates, or 0 for none.")
    if given.every == 0:
        return None
    if not 1 <= given.num_rows <= config.batch:
        raise ConfigError(
            f"shadow.num_rows is {given.num_rows}: expected 1 to batch = {config.batch}."
        )
    try:
        watch = jax.jit(
            shadow(
                model.cell,
                model.loss_fn,
                window_length=given.window_length,
                truncation_lengths=given.truncation_lengths,
                law=artbp.truncation.polynomial(given.mean_length, given.alpha),
                num_draws=given.num_draws,
                history_length=given.history_length,
                num_rows=given.num_rows,
            )
        )
    except (TypeError, ValueError) as error:
        raise ConfigError(f"shadow: {error}") from error
    # Beside the two keys that a run splits its seed into.
    rng_key = jax.random.fold_in(jax.random.key(config.seed), 2)

    def measure(
        params: Any, state: Any, stream: artbp.Stream, updates: int
    ) -> Mapping[str, jax.Array]:
        return watch(params, state, stream, jax.random.fold_in(rng_key, updates))

    return measure
