"""Which truncation wins over memory and batch size: predicted in closed form, and trained.

    python -m experiments.phase --config configs/phase/default.py --workdir DIR

Expected: ARTBP wins up to memories of some L0, the farther the more rows; beyond, TBPTT at the
matched horizon. As predicted at 12 of 15 points, not told apart at the other 3. 12 minutes on 2
busy cores of an x86-64 server.
"""

import ml_collections


def get_config():
    """The defaults of experiments.phase.config.default_config()."""
    return ml_collections.ConfigDict()
