"""A critic at the edges of unbiased TBPTT: influence balancing, a controller, characters.

    python -m experiments.critic --config configs/critic/default.py --workdir DIR

Expected time: TODO
Expected result: experiments/results/critic/table.md.
"""

import ml_collections


def get_config():
    """The defaults of `experiments.critic.config`."""
    return ml_collections.ConfigDict()
