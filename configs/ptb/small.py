"""Penn Treebank characters at a size for a laptop: LSTM 128, batch 64, 3 epochs.

One run:     python -m experiments.ptb --config configs/ptb/small.py --workdir DIR
             (--set method=tbptt or method=uncompensated; the default is artbp)
The table:   python -m experiments.ptb.study --config configs/ptb/small.py --workdir DIR --jobs 2
             (18 runs: 6 learning rates and then 3 paired seeds, for tbptt and artbp; without
             Adam: --set optimizer.name=sgd and other --rates)

Measured on 2 cores of an x86-64 machine, two runs at a time: 117 to 165 s for one run, 22 minutes
for the table. Learning rates as tuned, test bits per character, mean of 3 seeds:

    tbptt  1.6e-2    1.778    (1.7803, 1.7681, 1.7858)
    artbp  8e-3      1.818    (1.8185, 1.7892, 1.8464)
    paired difference +0.040 +- 0.049 (95% t interval)
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
    config.shadow = {"every": 100}
    config.model = {"cell": "lstm", "hidden_size": 128}
    config.optimizer = {"name": "adam", "learning_rate": 8e-3}  # tbptt's: 1.6e-2
    return config
