"""The flags of studies on Penn Treebank: which arms and seeds, and how many runs at a time."""

from collections.abc import Sequence
from typing import NamedTuple

from absl import flags

from experiments.common import fields
from experiments.common.errors import ConfigError

_ARMS = flags.DEFINE_list("arms", None, "Arms to run, in this order. Default: all of the study.")
_TUNING_SEEDS = flags.DEFINE_list(
    "tuning_seeds", None, "Seeds that choose the rate. Default: those of the study."
)
_SEEDS = flags.DEFINE_list("seeds", None, "Seeds compared. Default: those of the study.")
_JOBS = flags.DEFINE_integer("jobs", 1, "Runs at the same time, as processes.")
FLAGS = (_ARMS, _TUNING_SEEDS, _SEEDS, _JOBS)


class Chosen(NamedTuple):
    """What the flags say."""

    arms: list[str]
    tuning_seeds: list[int]
    seeds: list[int]
    jobs: int


def read(arms: Sequence[str], tuning_seeds: Sequence[int], seeds: Sequence[int]) -> Chosen:
    """Reads the flags; the arguments are the defaults of the study.

    Raises ConfigError for an unknown arm, or a seed that is no integer.
    """

    def chosen(flag: flags.FlagHolder, default: Sequence) -> list:
        return list(default) if flag.value is None else flag.value

    names = chosen(_ARMS, arms)
    fields.one_of(*arms)("--arms", tuple(names))
    fields.each_once("--arms", tuple(names))
    try:
        numbers = [int(seed) for seed in chosen(_TUNING_SEEDS, tuning_seeds)]
        return Chosen(names, numbers, [int(s) for s in chosen(_SEEDS, seeds)], _JOBS.value)
    except ValueError as error:
        raise ConfigError(f"--seeds and --tuning_seeds hold numbers: {error}.") from error
