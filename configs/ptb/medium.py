"""Penn Treebank characters, LSTM 256, batch 64, 10 epochs.

    python -m experiments.ptb --config configs/ptb/medium.py --workdir DIR
    (--set 'arm=tbptt(50, draw_offset=True)' or --set 'arm=uncompensated(50, alpha=4)')

Expected time: not measured yet.
Expected bits per character: not measured yet.
"""

import ml_collections


def get_config():
    """What differs from, or is worth repeating of, experiments.ptb.config.default_config()."""
    config = ml_collections.ConfigDict()
    config.arm = "artbp(50, alpha=4)"
    config.num_epochs = 10
    config.batch = 64
    config.model = {"cell": "lstm", "hidden_size": 256}
    config.optimizer = {"name": "adam", "learning_rate": 1e-3}
    return config
