"""The text of --dry_run: the configuration, and what is known of the cost of the run."""

import os
from collections.abc import Sequence
from typing import Any

import ml_collections

from experiments.common import catalogue
from experiments.common.config import describe, load_config


def text(
    experiment: str, defaults: ml_collections.ConfigDict, config: Any, cost: Sequence[str]
) -> str:
    """Returns what --dry_run prints.

    Args:
        experiment: its name.
        defaults: of its configuration.
        config: the resolved one.
        cost: lines about parameters, steps and memory; empty where the experiment has none.
    """
    fields = "\n".join(f"  {line}" for line in describe(config))
    known = "\n".join(cost or ["Parameters, steps and memory: not known before the run."])
    return (
        f"Configuration of experiments.{experiment}:\n{fields}\n\n{known}\n"
        f"{expected_time(experiment, defaults, config)}\n"
        "--dry_run: nothing was run, and nothing was written."
    )


def expected_time(experiment: str, defaults: ml_collections.ConfigDict, config: Any) -> str:
    """Returns the time that a file in `configs` states, if `config` equals what it describes."""
    known = [one for one in catalogue.configs(experiment) if one.time]
    for one in known:
        described = load_config(defaults, os.path.join(catalogue.ROOT, one.path))
        if described.to_dict() == config.to_dict():
            return f"Expected time, from {one.path}: {one.time}"
    others = "".join(f"\n  {one.path}: {one.time}" for one in known)
    return f"Expected time: not known for this configuration. Known are:{others}"
