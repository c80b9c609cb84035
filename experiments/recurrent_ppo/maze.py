"""A T-maze with noise: the cue at the start of a corridor says which way to turn at its end.

    place     start   corridor                     junction
    symbol    cue     one of 4 at random           junction
    forward   moves   moves                        no effect, reward −0.1
    a turn    no effect, reward −0.1               ends the episode: reward 1 if it is the cue's
                                                   direction, −1 otherwise

The cue is shown at the first step of an episode only. Between this step and the turn lie at least
`corridor_length` steps. Without memory the best return of an episode is 0, with memory it is 1.
An episode has no time limit. The next one begins at the step after the turn.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

FORWARD, NUM_ACTIONS = 2, 3  # actions 0 and 1 are turns; so are the cues
NUM_NOISE = 4
JUNCTION = 2 + NUM_NOISE
NUM_SYMBOLS = JUNCTION + 1
STEP_WITHOUT_EFFECT = -0.1


class Maze(NamedTuple):
    """Where the agent of each row stands, and what it sees; all `[B]`.

    Attributes:
        cue: int32, 0 or 1, the direction in which the episode's turn is right.
        position: int32, 0 at the start, corridor_length at the junction.
        symbol: int32, what is seen.
        is_first: bool, whether an episode begins at this step.
    """

    cue: jax.Array
    position: jax.Array
    symbol: jax.Array
    is_first: jax.Array


class Outcome(NamedTuple):
    """What the actions lead to; all `[B]`: rewards, whether the episode ends, and rightly so."""

    reward: jax.Array
    is_end: jax.Array
    is_right: jax.Array


def begin(rng_key: jax.Array, num_rows: int) -> Maze:
    """Begins an episode in every row."""
    cue = jax.random.randint(rng_key, (num_rows,), 0, 2)
    return Maze(cue, jnp.zeros_like(cue), cue, jnp.ones((num_rows,), bool))


def step(
    rng_key: jax.Array, maze: Maze, action: jax.Array, corridor_length: int
) -> tuple[Maze, Outcome]:
    """Takes an action, int32 `[B]`, in every row; rows whose episode ends begin the next one."""
    noise_key, cue_key = jax.random.split(rng_key)
    at_junction, forward = maze.position == corridor_length, action == FORWARD
    is_end = at_junction & ~forward
    is_right = is_end & (action == maze.cue)
    has_effect = at_junction != forward
    reward = jnp.where(is_end, 2.0 * is_right - 1, jnp.where(has_effect, 0, STEP_WITHOUT_EFFECT))
    position = maze.position + (forward & ~at_junction)
    noise = jax.random.randint(noise_key, position.shape, 2, JUNCTION)
    symbol = jnp.where(position == corridor_length, JUNCTION, noise)
    going_on = Maze(maze.cue, position, symbol, jnp.zeros_like(is_end))
    new = begin(cue_key, len(position))
    maze = jax.tree.map(lambda new, old: jnp.where(is_end, new, old), new, going_on)
    return maze, Outcome(reward, is_end, is_right)
