"""Which truncation wins over memory and batch size: predicted in closed form, and trained.

    python -m experiments.phase --config configs/phase/default.py --workdir DIR

Expected time: 7 minutes of processor time on an x86-64 server.
Expected result: at equal memory, ARTBP wins up to memories of 2·L0, and unbiased TBPTT from 4·L0
on; TBPTT is level with it with a single row and a long memory. The predicted kind is ahead at 9 of
15 points, and not told from another one at the other 6, at equal time steps and at equal work.
"""

import ml_collections


def get_config():
    """The defaults of `experiments.phase.config`."""
    return ml_collections.ConfigDict()
