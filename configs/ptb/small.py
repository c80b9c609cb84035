"""Penn Treebank characters at a size for a laptop: LSTM 128, batch 64, 3 epochs.

One run:     python -m experiments.ptb --config configs/ptb/small.py --workdir DIR
             (--set method=tbptt or method=uncompensated; the default is artbp)
The table:   python -m experiments.ptb.study --config configs/ptb/small.py --workdir DIR --jobs 2
             (18 runs: 6 learning rates and then 3 paired seeds, for tbptt and artbp; without
             Adam: --set optimizer.name=sgd and other --rates)

Expected time: not measured yet.
Expected bits per character: not measured yet.
"""

import ml_collections


def get_config():
    """What differs from, or is worth repeating of, experiments.ptb.config.default_config()."""
    config = ml_collections.ConfigDict()
    config.method = "artbp"
    config.num_epochs = 3
    config.batch = 64
    config.mean_length = 50
    config.alpha = 4.0
    config.model = {"cell": "lstm", "hidden_size": 128}
    config.optimizer = {"name": "adam", "learning_rate": 2e-3}
    return config
