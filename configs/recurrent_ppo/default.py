"""Recurrent PPO in a T-maze: the return against the window of the backward pass.

    python -m experiments.recurrent_ppo --config configs/recurrent_ppo/default.py --workdir DIR

Expected time: 9 minutes of CPU time, so about 5 minutes on 2 free cores of an x86-64 server.
Expected result: experiments/results/recurrent_ppo/table.md; TBPTT 32 and full BPTT get a return of
1.00, ARTBP 8 and its boundaries without compensation 0.99, unbiased TBPTT 8 0.92, and TBPTT 4, 8
and 16, whose windows are too short for the 16 steps from the cue to the turn, 0.32, 0.80 and 0.44.
"""

import ml_collections


def get_config():
    """The defaults of `experiments.recurrent_ppo.config`."""
    return ml_collections.ConfigDict()
