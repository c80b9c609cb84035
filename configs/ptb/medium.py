"""Penn Treebank characters, LSTM 256, batch 64, 10 epochs.

    python -m experiments.ptb --config configs/ptb/medium.py --workdir DIR
    (--set method=tbptt or method=uncompensated; the default is artbp)

Expected time: not measured yet.
Expected bits per character: not measured yet.
"""

import ml_collections


def get_config():
    """What differs from, or is worth repeating of, experiments.ptb.config.default_config()."""
    config = ml_collections.ConfigDict()
    config.method = "artbp"
    config.num_epochs = 10
    config.batch = 64
    config.mean_length = 50
    config.alpha = 4.0
    config.model = {"cell": "lstm", "hidden_size": 256}
    config.optimizer = {"name": "adam", "learning_rate": 1e-3}
    return config
