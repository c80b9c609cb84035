"""Refuses arms that an experiment cannot run as their names say."""

import optax

from experiments.common.arms import Arm
from experiments.common.errors import ConfigError


def check_plain_segments(field: str, arm: Arm) -> None:
    """Raises ConfigError for a drawn offset, and for segments that start with the first carry.

    For experiments that draw lengths or gates from the law instead of calling `arm.build`.
    """
    for name, expected in (("draw_offset", False), ("segment_start", "carried")):
        if arm.arguments.get(name, expected) != expected:
            raise ConfigError(
                f"{field} holds {arm.text}: this experiment draws segments from their law alone. "
                f"Expected {name}={expected!r}."
            )


def check_as_named(field: str, arm: Arm, sequence_length: int | None = None) -> None:
    """Raises ConfigError for an arm that this experiment would not run as its name says.

    For experiments with an optimiser of their own, on sequences of `sequence_length` steps; None
    for one sequence.
    """
    reason = ""
    if arm.optimizer is not optax.adam:
        reason = "this experiment has an optimiser of its own"
    elif arm.name == "bptt" and arm.length not in (None, sequence_length):
        reason = f"full BPTT over {arm.length} steps needs sequences of as many"
    if reason:
        raise ConfigError(f"{field} holds {arm.text}: {reason}. Expected another arm.")
