"""Every field of a ptb configuration with its default, and the estimator that they describe."""

from __future__ import annotations

from typing import Any

import ml_collections

import artbp
from experiments.common.errors import ConfigError
from experiments.ptb import model as model_lib

METHODS = ("tbptt", "artbp", "uncompensated")


def default_config() -> ml_collections.ConfigDict:
    """The fields; a file in configs/ptb and `--set` change them."""
    config = ml_collections.ConfigDict()
    # tbptt: cuts at every multiple of mean_length. artbp: random cuts, compensated.
    # uncompensated: the same random cuts without the compensation, the control.
    config.method = "artbp"
    config.seed = 0  # initial parameters and random cuts
    config.num_epochs = 1
    config.batch = 64  # rows read side by side
    config.mean_length = 50  # L0 of artbp and uncompensated; the truncation length of tbptt
    config.alpha = 4.0  # tail of the law of artbp and uncompensated
    config.draw_offset = True  # tbptt: an offset drawn for each epoch, or the same cuts in each

    config.data = ml_collections.ConfigDict()
    config.data.source = "ptb"  # or "generated": made-up text, to try the code without the data
    config.data.generated_lines = 2000  # lines of training text, for source "generated" only

    config.model = ml_collections.ConfigDict()
    config.model.cell = "lstm"  # or "gru"
    config.model.hidden_size = 128

    config.optimizer = ml_collections.ConfigDict()
    config.optimizer.name = "adam"  # see experiments.common.optimizers.OPTIMIZERS
    config.optimizer.learning_rate = 2e-3
    # Its further arguments in optax: --set optimizer.options.momentum=0.9
    config.optimizer.options = ml_collections.ConfigDict()
    config.optimizer.clip_value = None  # clipping biases a random gradient, see
    config.optimizer.clip_norm = None  # experiments.common.optimizers.CLIPPING_HELP

    # Bias and noise of truncated gradients beside the training, see artbp.diagnostics.shadow and
    # experiments.ptb.watch. It changes nothing but the rows of metrics.
    config.shadow = ml_collections.ConfigDict()
    config.shadow.every = 0  # updates between measurements, at the end of a row of metrics; 0: none
    config.shadow.window_length = 256
    config.shadow.truncation_lengths = (10, 50, 200)
    config.shadow.mean_length = 50  # L0 and alpha of the ARTBP whose noise is measured,
    config.shadow.alpha = 4.0  # whatever the run itself truncates with
    config.shadow.num_draws = 8
    config.shadow.history_length = 256
    config.shadow.num_rows = 8  # of the batch

    # "compiled" runs many segments in one program; "host" runs them one by one, with the
    # segment kernel that suits the device (see artbp's policies).
    config.driver = "compiled"
    return config


def make_estimator(config: Any, model: model_lib.CharacterModel) -> artbp.GradientEstimator:
    """The gradient estimator that `config.method` names.

    Loss and gradient are divided by mean_length · batch whatever the length of the segment drawn:
    a division by the drawn length would weigh short segments up, which is a bias.

    Raises:
        ConfigError: an unknown method, or numbers that its truncation law refuses.
    """
    if config.method not in METHODS:
        raise ConfigError(f"method is {config.method!r}: expected one of {', '.join(METHODS)}.")
    normalizer = float(config.mean_length * config.batch)
    try:
        if config.method == "tbptt":
            return artbp.tbptt(
                model.cell,
                model.loss_fn,
                truncation_length=config.mean_length,
                draw_offset=config.draw_offset,
                normalizer=normalizer,
            )
        return artbp.artbp(
            model.cell,
            model.loss_fn,
            artbp.truncation.polynomial(config.mean_length, config.alpha),
            compensate=config.method == "artbp",
            normalizer=normalizer,
        )
    except ValueError as error:
        raise ConfigError(
            f"mean_length = {config.mean_length}, alpha = {config.alpha}, batch = {config.batch}: "
            f"{error}"
        ) from error
