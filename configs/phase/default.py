"""Which truncation wins over memory and batch size: predicted in closed form, and trained.

    python -m experiments.phase --config configs/phase/default.py --workdir DIR

Expected: ARTBP wins up to memories of some L0, the farther the more rows; beyond, TBPTT at the
matched horizon. The predicted kind is ahead at 10 of 15 points, and the two are not told apart at
the other 5. 87 s on 2 cores of an x86-64 server.
"""

import ml_collections


def get_config():
    """The defaults of `experiments.phase.config`."""
    return ml_collections.ConfigDict()
