"""A learning-rate schedule that counts time steps."""

from collections.abc import Callable
from typing import Any

import optax

from artbp._scaling import scale_by_argument


def scale_by_time_step_schedule(
    schedule: Callable[[Any], Any],
) -> optax.GradientTransformationExtraArgs:
    """Multiplies updates by a schedule of time steps; put it last in the chain::

        optimizer = optax.chain(optax.adam(1.0), artbp.scale_by_time_step_schedule(schedule))
        grads, state, info = estimator.estimate(params, state, stream)
        updates, opt_state = optimizer.update(grads, opt_state, params, num_steps=state.num_steps)

    The schedules of optax count updates. Where segments have random lengths, the rate after a given
    number of time steps then depends on the draws, and two estimators with different segments have
    different rates at the same point of the data. This transformation takes the count of time steps
    from the estimator's state instead. It has no count of its own, so it also fits where several
    estimates are accumulated into one update.

    The rate of an update is schedule(n), where n are all time steps since `init`, those of the
    estimate included. For a schedule that starts with schedule(0), as in optax, pass the
    `num_steps` of the state before the estimate.

    Args:
      schedule: `schedule(num_steps) -> rate`, such as `optax.cosine_decay_schedule(1e-3, 10**6)`.

    Returns:
      A transformation whose `update` needs the keyword argument `num_steps`.

    Raises:
      TypeError: from `update`, without num_steps.
    """
    return scale_by_argument(
        "scale_by_time_step_schedule",
        "num_steps",
        "optimizer.update(..., num_steps=state.num_steps), with the state that estimate returned",
        schedule,
    )
