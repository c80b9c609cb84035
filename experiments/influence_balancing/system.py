"""Influence balancing: a linear system whose short-term influence has the wrong sign.

    s_{t+1} = A s_t + x_t · θ · (1, …, 1, −1, …, −1)      A_ii = A_{i,i+1} = 1/2
    ℓ_t     = ½ (s_t[0] − 1)²

It has 23 states and one parameter. θ pushes the first 10 states up and the other 13 down. Each step
passes influence from state i + 1 to state i, so the states that push down need some 20 to 46 steps
to reach s[0]. At short range a larger θ raises s[0]; in the long run it lowers it. A gradient that
looks back too few steps therefore has the wrong sign, whatever the learning rate.

With x_t = 1 (no input), s[0] settles at −6 θ, so that θ* = −1/6, where the loss is zero. With a
noisy drive x_t = 1 + σ ε_t the loss cannot vanish; see `predictions`. Source: arXiv 1705.08209, as
restated in arXiv 2304.11153 and google-research/persistent_es (for θ_0 = 0.5 and s_0 = ones).
"""

import jax
import jax.numpy as jnp
import numpy as np

NUM_STATES, NUM_POSITIVE, TARGET = 23, 10, 1.0
# The direct push of θ on each state.
SIGNS = np.where(np.arange(NUM_STATES) < NUM_POSITIVE, 1.0, -1.0)
# Sum of the influences of θ on s[0] over all delays: 2 · (10 − 13).
STATIONARY_GAIN = 2.0 * float(SIGNS.sum())
OPTIMAL_THETA = TARGET / STATIONARY_GAIN


def cell(params: dict, carry: jax.Array, x: jax.Array | None) -> tuple[jax.Array, jax.Array]:
    """One step: the next state [23], its first entry. `x` scales the drive; None stands for 1."""
    return step(params["theta"], SIGNS, carry, x)


def step(
    theta: jax.Array, signs: np.ndarray, carry: jax.Array, x: jax.Array | None
) -> tuple[jax.Array, jax.Array]:
    """`cell` for a system of any size: signs [n] is the direct push of θ on each state."""
    drive = theta * jnp.asarray(signs, carry.dtype)
    if x is not None:
        drive = drive * x
    from_right = jnp.concatenate([carry[1:], jnp.zeros((1,), carry.dtype)])
    carry = 0.5 * (carry + from_right) + drive
    return carry, carry[0]


def loss_fn(params: dict, y: jax.Array, target: jax.Array | None) -> jax.Array:
    """½ (y − 1)² of one step, a scalar."""
    return 0.5 * jnp.square(y - TARGET)


def initial_carry() -> jax.Array:
    """s_0 = ones, float64."""
    return jnp.ones((NUM_STATES,), jnp.float64)


def stationary_loss(theta: np.ndarray) -> np.ndarray:
    """The loss per step when θ is held and the drive is constant: ½ (−6 θ − 1)²."""
    return 0.5 * np.square(STATIONARY_GAIN * theta - TARGET)


def influence(num_delays: int, signs: np.ndarray = SIGNS) -> np.ndarray:
    """a_j = e_0ᵀ A^j (1, …, 1, −1, …, −1), [num_delays]: what θ adds to s[0] after j steps.

    `signs` [n] is the direct push of θ on each state. The sum over all delays is 2 · Σ signs.
    """
    transition = 0.5 * (np.eye(len(signs)) + np.eye(len(signs), k=1))
    influences, reach = np.empty(num_delays), np.array(signs, float)
    for delay in range(num_delays):
        influences[delay] = reach[0]
        reach = transition @ reach
    return influences
