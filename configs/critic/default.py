"""A critic at the edges of unbiased TBPTT: influence balancing, a controller, characters.

    python -m experiments.critic --config configs/critic/default.py --workdir DIR

Expected time: 18 minutes beside other programs on 2 x86-64 cores.
Expected result: experiments/results/critic/table.md; early in training the critic reduces the
variance of the look-backs to 0.06 times in influence balancing and to 0.45 times in the controller,
and not on characters.
"""

import ml_collections


def get_config():
    """The defaults of `experiments.critic.config`."""
    return ml_collections.ConfigDict()
