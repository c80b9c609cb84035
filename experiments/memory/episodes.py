"""Makes the stream: an item, then distractors, while the target stays the item.

    step in the episode    0      1   2   3  ...
    input                  item   distractor at each step
    target                 the item, at every step

Items are 0 to 3 and distractors 4 to 7, uniform and independent. An episode begins with the
initial carry, in all rows at the same step. The lag of a step is its number in the episode: how
long ago the item was shown. Without memory the best accuracy is 1/4.
"""

import jax
import jax.numpy as jnp
import numpy as np

import artbp

NUM_ITEMS = 4
NUM_SYMBOLS = 8
CHANCE = 1 / NUM_ITEMS


def make_stream(
    rng_key: jax.Array, num_episodes: int, episode_length: int, batch: int
) -> artbp.Stream:
    """Returns xs, targets and resets, [T, batch] each, T = num_episodes · episode_length."""
    item_key, distractor_key = jax.random.split(rng_key)
    shape = (num_episodes, episode_length, batch)
    items = jax.random.randint(item_key, (num_episodes, 1, batch), 0, NUM_ITEMS)
    distractors = jax.random.randint(distractor_key, shape, NUM_ITEMS, NUM_SYMBOLS)
    first = jnp.arange(episode_length)[None, :, None] == 0
    xs = jnp.where(first, items, distractors).reshape(-1, batch)
    targets = jnp.broadcast_to(items, shape).reshape(-1, batch)
    resets = jnp.broadcast_to(first, shape).reshape(-1, batch)
    return artbp.Stream(xs, targets, resets=resets)


def counted_lags(episode_length: int, lags: tuple[int, ...]) -> np.ndarray:
    """Returns where the loss counts in each training, bool [1 + len(lags), episode_length].

    Row 0: at every lag but 0. Then one row for each of `lags`, at that lag alone.
    """
    steps = np.arange(episode_length)
    return np.stack([steps > 0, *(steps == lag for lag in lags)])
