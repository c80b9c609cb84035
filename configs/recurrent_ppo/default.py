"""Recurrent PPO in a T-maze: the return against the window of the backward pass.

    python -m experiments.recurrent_ppo --config configs/recurrent_ppo/default.py --workdir DIR

Expected time: 10 minutes on 2 cores of an x86-64 server.
Expected result: experiments/results/recurrent_ppo/table.md.
"""

import ml_collections


def get_config():
    """The defaults of `experiments.recurrent_ppo.config`."""
    return ml_collections.ConfigDict()
