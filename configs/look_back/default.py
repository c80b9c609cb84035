"""What unbiased TBPTT costs on a character LSTM: older parameters, laws, rows.

    ARTBP_DATA_DIR=FOLDER python -m experiments.look_back --config configs/look_back/default.py \
        --workdir DIR

with the Penn Treebank files in FOLDER; without ARTBP_DATA_DIR it runs on generated text.

Expected time: 40 minutes beside other programs on 2 x86-64 cores.
Expected result: experiments/results/look_back/table.md; older parameters change the gradient of a
window by 2 to 5 % at the tuned rate 0.016, where truncation changes it by 7 to 17 %, and by 1 to
11 % at 0.064, where truncation changes it by 5 to 14 %.
"""

import ml_collections


def get_config():
    """The defaults of `experiments.look_back.config`."""
    return ml_collections.ConfigDict()
