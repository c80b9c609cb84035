"""Bias and noise of every way to truncate, on five systems.

    python -m experiments.bias --config configs/bias/default.py --workdir DIR

with ARTBP_DATA_DIR=FOLDER in front where the Penn Treebank files are; else the character model
learns generated text.

Expected time: 2 min 22 s on 2 x86-64 cores.
Expected result: experiments/results/bias/table.md; TBPTT's bias is told from zero at every K up to
16 on all systems, and zero lies in each of ARTBP's intervals.
"""

import ml_collections


def get_config():
    """The defaults of `experiments.bias.config`."""
    return ml_collections.ConfigDict()
