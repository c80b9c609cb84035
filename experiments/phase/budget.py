"""What is equal where arms are compared: the memory, and then the time steps or the work.

Equal memory: for its backward passes, each arm stores as many states of the system, as a mean over
time. TBPTT stores the states of a window, ARTBP those of the segment that a random step is in
(E[L²]/L0), and unbiased TBPTT those of a window and 2·`stored_carries` states at which older
windows start, because these are run again (mode "reforward").

Equal work: each arm evaluates the cell as often as TBPTT does in `num_steps` time steps, so that
unbiased TBPTT has 1/(1 + W) of the time steps, with W the expected number of older windows.
"""

import math
from typing import Any

import numpy as np

from experiments.common.arms import Arm, Size, parse

# What each map holds equal, besides the memory.
EQUAL = {"steps": "equal time steps", "work": "equal work"}
KINDS = {"tbptt": "TBPTT", "artbp": "ARTBP", "unbiased_tbptt": "unbiased TBPTT"}

_SIZE = Size(num_params=1, num_states=1)


def states_stored(config: Any, arm: Arm) -> float:
    """Returns the mean number of states that an arm stores for its backward passes."""
    if arm.look_back is not None:
        return arm.length + 2 * config.stored_carries
    assert arm.law is not None
    ages = np.arange(2**20)
    survival = arm.law.survival(ages)
    return float((2 * ages + 1) @ survival / survival.sum())


def time_steps(config: Any, arm: Arm, equal: str) -> int:
    """Returns the time steps of a training where `equal`, a key of `EQUAL`, is the same."""
    if equal == "steps":
        return config.num_steps
    evaluations = config.num_steps * parse("tbptt(1)").evaluations(_SIZE)
    return math.floor(evaluations / arm.evaluations(_SIZE) + 1e-3)
