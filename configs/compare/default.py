"""Every estimator of the registry on influence balancing, its variants, and a task to learn.

    python -m experiments.compare --config configs/compare/default.py --workdir results/compare

Expected time: 22 minutes on 2 x86-64 cores, compilation included.
Expected result: experiments/results/compare/table.md; ARTBP 16 and RTRL get to the optimum of
influence balancing, TBPTT with 8 to 61 steps does not.
"""

import ml_collections


def get_config():
    """The defaults of `experiments.compare.config`."""
    return ml_collections.ConfigDict()
