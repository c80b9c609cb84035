"""TBPTT(k1, k2) on next-character prediction: three modes at (1, 16), and sweeps of k1 and k2.

    ARTBP_DATA_DIR=FOLDER python -m experiments.k1k2 --config configs/k1k2/default.py --workdir DIR

with the Penn Treebank files in FOLDER; without ARTBP_DATA_DIR it runs on generated text.

Expected time: 5 min 8 s on 2 x86-64 cores.
Expected result: experiments/results/k1k2/table.md; the three modes end within 0.02 bits per
character of each other, the window run again takes 1.3 times as long.
"""

import ml_collections


def get_config():
    """The defaults of `experiments.k1k2.config`."""
    return ml_collections.ConfigDict()
