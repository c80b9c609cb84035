"""The params of a run that has been trained."""

from typing import Any

import jax

from experiments.common.checkpoints import Checkpoints
from experiments.common.workdir import Workdir
from experiments.ptb.model import CharacterModel


def best_params(workdir: Workdir, model: CharacterModel) -> Any:
    """The params of the best epoch by validation; the run may still be going on.

    CheckpointError where they are damaged, or where there are none.
    """
    like = jax.eval_shape(model.init, jax.random.key(0))
    identity = {"config": workdir.config_hash()}
    with Checkpoints(workdir.checkpoints_path, identity=identity, read_only=True) as checkpoints:
        return checkpoints.restore_best(like)[0]
