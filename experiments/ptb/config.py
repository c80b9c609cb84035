"""Every field of a ptb configuration; the estimator and the measurements that it describes."""

from typing import Any

import jax
import ml_collections

import artbp
from artbp.diagnostics import shadow
from experiments.common.arm_checks import check_as_named, check_plain_segments
from experiments.common.arms import parse
from experiments.common.errors import ConfigError
from experiments.common.session import Measure
from experiments.ptb.model import CharacterModel


def default_config() -> ml_collections.ConfigDict:
    """The fields; a file in configs/ptb and `--set` change them."""
    return ml_collections.ConfigDict(
        {
            "arm": "artbp(50, alpha=4)",  # the gradient estimator, see experiments.common.arms
            "seed": 0,  # initial params and random boundaries
            "num_epochs": 1,
            "batch": 64,  # rows
            # "compiled" runs many segments in one program; "host" runs them one by one, with the
            # segment kernel that suits the device (see artbp's policies).
            "driver": "compiled",
            # After a loss or gradient that is not finite: "stop", "skip" the update, or "roll_back"
            # to the last checkpoint. See experiments.common.divergence.
            "on_divergence": "stop",
            "data": {
                "source": "ptb",  # or "generated": made-up text, to try the code without the data
                "generated_lines": 2000,  # of training text, for source "generated" only
                "keep_line_spaces": False,  # see experiments.ptb.data
            },
            "model": {
                "cell": "lstm",  # or "gru", "authors_lstm"
                "hidden_size": 128,
                "products": "float32",  # or "bfloat16": of the cell, summed in float32
            },
            # How the validation text is scored after each epoch: as one column, or as more, side by
            # side, which is faster. At the end it is scored as one column in any case.
            "columns": 1,
            "optimizer": {
                "name": "adam",  # see experiments.common.optimizers
                "learning_rate": 2e-3,
                "options": {},  # further ones of optax: --set optimizer.options.momentum=0.9
                "clip_value": None,  # clipping biases a random gradient, see CLIPPING_HELP
                "clip_norm": None,
            },
            # Bias and noise of truncated gradients during the training, by
            # artbp.diagnostics.shadow. They add rows of metrics and do not change the params.
            "shadow": {
                "every": 0,  # updates between measurements, at the end of a chunk; 0: none
                "window_length": 256,
                "truncation_lengths": (10, 50, 200),
                "arm": "artbp(50, alpha=4)",  # the ARTBP whose noise is measured
                "num_draws": 8,
                "history_length": 256,
                "num_rows": 8,  # of the batch
            },
        }
    )


def make_estimator(config: Any, model: CharacterModel) -> artbp.GradientEstimator:
    """The gradient estimator that `config.arm` names.

    Loss and gradient are divided by (mean length · batch), whatever the length of the drawn
    segment. A division by the drawn length would give short segments more weight, which is a bias.
    Raises ConfigError for an arm that cannot be read, or that makes one update per stream.
    """
    arm = parse(config.arm)
    if arm.length is None:
        raise ConfigError(f"arm is {config.arm!r}: expected one with a length, as 'tbptt(50)'.")
    check_as_named("arm", arm)
    return arm.build(model.cell, model.loss_fn, normalizer=float(arm.length * config.batch))


def make_measure(config: Any, model: CharacterModel) -> Measure | None:
    """The measurements of `config.shadow`, for `train(measure=…)`; None where there are none.

    Their random draws depend on the seed and the number of updates, and differ from those of the
    training. Raises ConfigError for numbers that `artbp.diagnostics.shadow` refuses.
    """
    given = config.shadow.to_dict()
    every, arm, num_rows = given.pop("every"), parse(given.pop("arm")), given["num_rows"]
    if every < 0:
        raise ConfigError(f"shadow.every is {every}: expected updates, or 0 for none.")
    if every == 0:
        return None
    if not 1 <= num_rows <= config.batch:
        raise ConfigError(f"shadow.num_rows is {num_rows}: expected 1 to batch = {config.batch}.")
    if arm.name != "artbp":
        raise ConfigError(f"shadow.arm is {arm.text!r}: expected one such as 'artbp(50, alpha=4)'.")
    check_plain_segments("shadow.arm", arm)
    try:
        watch = jax.jit(shadow(model.cell, model.loss_fn, law=arm.law, **given))
    except (TypeError, ValueError) as error:
        raise ConfigError(f"shadow: {error}") from error
    # A run splits its seed into two keys; this is a third one.
    rng_key = jax.random.fold_in(jax.random.key(config.seed), 2)
    return lambda params, state, stream, updates: watch(
        params, state, stream, jax.random.fold_in(rng_key, updates)
    )
