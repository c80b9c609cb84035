"""Bias and noise of every way to truncate, on five systems.

    python -m experiments.bias --config configs/bias/default.py --workdir DIR

with ARTBP_DATA_DIR=FOLDER in front where the Penn Treebank files are; else the character model
learns generated text.

Expected time: 6 min 30 s of CPU time on an x86-64 server.
Expected result: experiments/results/bias/table.md; TBPTT's bias is told from zero at every K up to
16 on all systems, and zero lies in each interval of ARTBP and of unbiased TBPTT.
"""

import ml_collections


def get_config():
    """The defaults of `experiments.bias.config`."""
    return ml_collections.ConfigDict()
