"""Seconds per update of every arm, one run at a time, in turns.

Arms take turns because a shared machine is now faster, now slower: what is compared was measured
within the same seconds. Compilation is left out.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
import optax

import artbp
from experiments.common.arms import Arm
from experiments.common.tuning import run_keys
from experiments.common.whole_run import train_whole
from experiments.k1k2.texts import Texts
from experiments.k1k2.training import make_estimator
from experiments.ptb.model import character_model


def seconds_per_update(config: Any, texts: Texts, arms: Sequence[Arm]) -> np.ndarray:
    """[rounds, arms]."""
    model = character_model("lstm", texts.num_symbols, config.hidden_size)
    num_steps = min(config.timing_steps, config.num_steps)
    xs, targets = (jax.device_put(array[:num_steps]) for array in texts.runs[0])
    key = run_keys(config)[0]

    def compile_arm(arm: Arm) -> Any:
        estimator = make_estimator(arm, model, config.batch)

        def train(xs: Any, targets: Any) -> Any:
            params = model.init(key)
            carry = model.initial_carry(params, config.batch)
            stream = artbp.Stream(xs, targets)
            edges = np.array([0, num_steps])
            return train_whole(
                estimator, optax.adam, 1e-3, params, carry, stream, key, edges=edges
            ).num_updates

        return jax.jit(train).lower(xs, targets).compile()

    programs = [compile_arm(arm) for arm in arms]
    for program in programs:
        jax.block_until_ready(program(xs, targets))
    seconds = np.empty((config.timing_rounds, len(arms)))
    for times in seconds:
        for i, program in enumerate(programs):
            started = time.perf_counter()
            num_updates = int(program(xs, targets))
            times[i] = (time.perf_counter() - started) / num_updates
    return seconds
