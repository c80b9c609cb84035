"""The flags of studies on Penn Treebank: arms, rates, seeds, and how the runs are started."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, TypeVar

from absl import flags

from experiments.common import slurm
from experiments.common.errors import ConfigError
from experiments.ptb_study.study import Compared, chosen_arms

_ARMS = flags.DEFINE_list("arms", None, "Arms to run, in this order. Default: all of the study.")
_RATES = flags.DEFINE_list(
    "rates", [], "Learning rates to run, for every arm. Default: those of the arm."
)
_SEEDS = flags.DEFINE_list("seeds", None, "Seeds compared. Default: those of the study.")
FLAGS = (_ARMS, _RATES, _SEEDS, *slurm.FLAGS)

_N = TypeVar("_N", int, float)


class Chosen(NamedTuple):
    """What the flags say."""

    arms: dict[str, Compared]
    seeds: list[int]
    jobs: int


def read(declared: Mapping[str, Compared], seeds: Sequence[int]) -> Chosen:
    """Reads the flags; the arguments are the arms and seeds of the study, the defaults.

    Raises ConfigError for an unknown arm, or a seed or rate that is no number.
    """
    names = list(declared) if _ARMS.value is None else _ARMS.value
    arms = chosen_arms(names, numbers(_RATES, float), declared)
    return Chosen(
        arms, list(seeds) if _SEEDS.value is None else numbers(_SEEDS, int), slurm.JOBS.value
    )


def numbers(flag: flags.FlagHolder, kind: Callable[[str], _N]) -> list[_N]:
    """The numbers in a flag's list; ConfigError for anything else."""
    try:
        return [kind(text) for text in flag.value]
    except ValueError as error:
        raise ConfigError(f"--{flag.name} holds numbers: {error}.") from error
