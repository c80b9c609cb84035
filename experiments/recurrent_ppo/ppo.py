"""Proximal policy optimisation: the advantages of a rollout, and the loss of a step.

Sources: Schulman et al., "Proximal Policy Optimization Algorithms" (arXiv 1707.06347); "High-
Dimensional Continuous Control Using Generalized Advantage Estimation" (arXiv 1506.02438).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from experiments.tasks import losses


class Target(NamedTuple):
    """What the loss of a step compares with; all `[B]`.

    Attributes:
        action: int32, the action that was taken.
        log_prob: its logarithmic probability under the policy that took it.
        advantage: normalised.
        return_: what the value is to predict: the advantage, not normalised, plus the old value.
    """

    action: jax.Array
    log_prob: jax.Array
    advantage: jax.Array
    return_: jax.Array


def init_heads(rng_key: jax.Array, hidden_size: int, num_actions: int) -> dict[str, Any]:
    """Draws linear readouts {"policy", "value"}. The first policy is nearly uniform."""
    policy_key, value_key = jax.random.split(rng_key)
    policy = losses.init_readout(policy_key, hidden_size, num_actions)
    policy["kernel"] = 0.01 * policy["kernel"]
    return {"policy": policy, "value": losses.init_readout(value_key, hidden_size, 1)}


def heads(params: Any, y: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns the log probabilities of the actions, `[B, actions]`, and the value, `[B]`."""
    policy, value = params["policy"], params["value"]
    log_probs = jax.nn.log_softmax(y @ policy["kernel"] + policy["bias"])
    return log_probs, (y @ value["kernel"] + value["bias"])[..., 0]


def log_prob_of(log_probs: jax.Array, action: jax.Array) -> jax.Array:
    """Picks the entries of the actions: `[B]` from `[B, actions]` and int32 `[B]`."""
    return jnp.take_along_axis(log_probs, action[..., None], axis=-1)[..., 0]


def advantages(
    rewards: jax.Array,
    is_end: jax.Array,
    values: jax.Array,
    last_value: jax.Array,
    discount: float,
    gae_lambda: float,
) -> jax.Array:
    """Returns the generalised advantage estimates, `[T, B]`.

        δ_t = r_t + γ (1 − end_t) V_{t+1} − V_t,    A_t = δ_t + γ λ (1 − end_t) A_{t+1}

    Args:
        rewards, is_end, values: `[T, B]`: r_t, whether the episode ends with action t, and V_t.
        last_value: `[B]`, V_T, the value of the step after the rollout.
    """
    discounts = discount * (1 - is_end.astype(values.dtype))
    next_values = jnp.concatenate([values[1:], last_value[None]])

    def step(advantage: jax.Array, given: Any) -> tuple[jax.Array, jax.Array]:
        delta, discount = given
        advantage = delta + gae_lambda * discount * advantage
        return advantage, advantage

    deltas = rewards + discounts * next_values - values
    zero = jnp.zeros_like(last_value)
    return jax.lax.scan(step, zero, (deltas, discounts), reverse=True)[1]


def make_loss(
    clip: float, value_weight: float, entropy_weight: float
) -> Callable[[Any, jax.Array, Target], jax.Array]:
    """Makes `loss_fn(params, y, target) -> [B]`, the clipped loss of one step.

    ρ = π(a) / π_old(a)
    ℓ = −min(ρ A, clamp(ρ, 1 − ε, 1 + ε) A) + value_weight · ½ (V − return)² − entropy_weight · H(π)
    """

    def loss_fn(params: Any, y: jax.Array, target: Target) -> jax.Array:
        log_probs, value = heads(params, y)
        ratio = jnp.exp(log_prob_of(log_probs, target.action) - target.log_prob)
        clipped = jnp.clip(ratio, 1 - clip, 1 + clip)
        gain = jnp.minimum(ratio * target.advantage, clipped * target.advantage)
        entropy = -jnp.sum(jnp.exp(log_probs) * log_probs, axis=-1)
        value_loss = 0.5 * jnp.square(value - target.return_)
        return -gain + value_weight * value_loss - entropy_weight * entropy

    return loss_fn
