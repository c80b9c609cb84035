"""Penn Treebank characters at the size of the ARTBP paper, for an accelerator: LSTM 1000.

TBPTT 50 against ARTBP with L0 = 50 and alpha = 4; batch 64, Adam 1e-4, no clipping, no dropout,
boundaries shared by the batch, carry kept between segments. These settings are a configuration to
try, put together from memory of Tallec & Ollivier, arXiv 1705.08209, not a quotation of it; the
number of epochs is ours.

    python -m experiments.ptb --config configs/ptb/paper.py --workdir DIR
    (--set 'arm=tbptt(50, draw_offset=True)' or --set 'arm=uncompensated(50, alpha=4)')

Expected time: not measured yet.
Expected bits per character: not measured yet.
"""

import ml_collections


def get_config():
    """What differs from, or is worth repeating of, experiments.ptb.config.default_config()."""
    config = ml_collections.ConfigDict()
    config.arm = "artbp(50, alpha=4)"
    config.num_epochs = 20
    config.batch = 64
    config.model = {"cell": "lstm", "hidden_size": 1000}
    config.optimizer = {"name": "adam", "learning_rate": 1e-4}
    return config
