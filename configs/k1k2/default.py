"""TBPTT(k1, k2) on next-character prediction: three modes at (1, 16), and sweeps of k1 and k2.

    ARTBP_DATA_DIR=FOLDER python -m experiments.k1k2 --config configs/k1k2/default.py --workdir DIR

with the Penn Treebank files in FOLDER; without ARTBP_DATA_DIR it runs on generated text.
"""

from experiments.k1k2.config import default_config

get_config = default_config
