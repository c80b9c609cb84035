"""Bias and noise of every way to truncate, on four kinds of system.

    python -m experiments.bias --config configs/bias/default.py --workdir DIR

with ARTBP_DATA_DIR=FOLDER in front where the Penn Treebank files are; else the character model
learns generated text.

Expected time: 2 min 22 s on 2 x86-64 cores.
Expected result: experiments/results/bias/table.md; TBPTT's bias is told from zero at every K up to
16 on all systems, and zero lies in each of ARTBP's intervals.
"""

from experiments.bias.config import default_config

get_config = default_config
