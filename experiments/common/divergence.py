"""What a run does after a bad segment: one whose loss, gradient or updated params are not finite.

A segment whose mean loss exceeds `max_loss` is bad too. Its update is never applied, so no
checkpoint holds it. `on_divergence` of the configuration says what comes next:

    stop        The run ends with TrainingDivergedError, and its checkpoints stay.
    skip        The run goes on. The next segment begins with the first carry, and with a fresh
                inner state of the estimator: a new sequence begins there.
    roll_back   The run goes on from its last checkpoint, with another key for the boundaries.

"skip" stops after MOST_SKIPPED bad segments in a row, and "roll_back" after MOST_ROLL_BACKS returns
to a checkpoint. An evaluation that is not finite cannot be skipped, and stops the run.

"roll_back" helps against a rare draw of boundaries. It does not help where the key makes no
difference, as for `tbptt` without a drawn offset, nor against NaN in the data. Where the last
checkpoint is depends on the clock (`checkpoint_every_seconds`), so two runs that roll back agree
bit for bit only if their checkpoints were saved at the same updates.
"""

import math
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

import artbp
from experiments.common.errors import TrainingDivergedError

Policy = Literal["stop", "skip", "roll_back"]
MOST_SKIPPED = 100
MOST_ROLL_BACKS = 10


def all_finite(tree: Any) -> jax.Array:
    """Whether every entry of every leaf is finite, bool scalar."""
    leaves = [jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(tree)]
    return jnp.all(jnp.stack(leaves))


def begin_anew(estimator: artbp.GradientEstimator, params: Any, state: Any, is_bad: Any) -> Any:
    """The state of the estimator; where `is_bad`, with the first carry and a fresh inner state.

    Lasting leaves of the carry, which have no first value, stay as they are.
    """

    def anew() -> tuple[Any, Any]:
        carry = jax.tree.map(
            lambda first, now: now if first is None else first,
            *(state.first_carry, state.carry),
            is_leaf=lambda leaf: leaf is None,
        )
        return carry, estimator.init(params, carry, rng_key=state.rng_key).inner_state

    def as_it_is() -> tuple[Any, Any]:
        return state.carry, state.inner_state

    carry, inner_state = jax.lax.cond(is_bad, anew, as_it_is)
    return state._replace(carry=carry, inner_state=inner_state)


def with_another_key(state: Any, number: int) -> Any:
    """The state of the estimator after roll-back number `number`."""
    return state._replace(rng_key=jax.random.fold_in(state.rng_key, jnp.uint32(number)))


def diverged(
    records: Any, progress: Any, max_loss: float, policy: Policy = "stop"
) -> TrainingDivergedError:
    """The error for the last segment of a chunk, a bad one, in one line.

    `records` are a `SegmentRecord` on the host, and `progress` counts up to their first segment.
    """
    bad = jax.tree.map(lambda rows: rows[-1].item(), records)
    update = progress.updates + int(np.sum(records.healthy[:-1]))
    time_step = progress.time_steps + int(np.sum(records.length[:-1], dtype=np.int64))
    loss, norm = bad.loss_sum / max(bad.num_losses, 1), bad.gradient_norm
    if not math.isfinite(loss):
        what = f"the mean loss {loss}"
    elif not math.isfinite(norm):
        what = f"a gradient of norm {norm} (mean loss {loss:.6g})"
    elif loss > max_loss:
        what = f"the mean loss {loss:.6g}, above the limit {max_loss:g}"
    else:
        what = f"parameters that are not finite (gradient norm {norm:.6g})"
    alpha = "a larger alpha (fewer long segments, smaller weights), " if bad.max_weight > 1 else ""
    remedies = {
        "stop": "or on_divergence=skip or roll_back",
        "skip": f"on_divergence=skip has left out {MOST_SKIPPED} updates in a row",
        "roll_back": f"on_divergence=roll_back has gone back {MOST_ROLL_BACKS} times",
    }
    return TrainingDivergedError(
        f"Training diverged at update {update}, time step {time_step}: a segment of {bad.length} "
        f"time steps gave {what}. Its largest compensation was {bad.max_compensation:.6g}, its "
        f"largest weight {bad.max_weight:.6g}. The update was not applied; checkpoints saved "
        f"before are as they were. Try a lower learning rate, {alpha}a shorter mean length, "
        "clipping (it biases a random gradient, most of all on long segments), "
        f"{remedies[policy]}.",
        update=update,
        time_step=time_step,
    )
