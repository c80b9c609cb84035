"""The main job: influence balancing at one learning rate, as in the paper.

    python -m experiments.influence_balancing

Expected time: 33 s on 2 x86-64 cores, compilation included.
Expected result (128 keys): ARTBP 16 converged for all keys with α = 4, α = 6 and the geometric law,
and so did unbiased TBPTT 10; TBPTT 200 converged (|θ − θ*| = 3.5e-5), TBPTT 100 wrong direction
(3.1), TBPTT 10 diverged (1.6e8); the same boundaries without compensation diverged for all keys.
"""

import ml_collections


def get_config():
    """The defaults of experiments.influence_balancing.config.FIELDS."""
    return ml_collections.ConfigDict()
