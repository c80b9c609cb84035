"""Penn Treebank characters at a size for a laptop: LSTM 128, batch 64, 3 epochs.

One run:     python -m experiments.ptb --config configs/ptb/small.py --workdir DIR
             (--set 'arm=tbptt(50, draw_offset=True)' or --set 'arm=uncompensated(50, alpha=4)')
The table:   python -m experiments.ptb_study --config configs/ptb/small.py --workdir DIR --jobs 2
             (eight arms: 5 learning rates on each of 2 tuning seeds, then 5 paired seeds: 120 runs)

Expected time: two minutes a run on one x86-64 core; two and a half hours for 105 runs of the
table, two at a time on 2 cores beside other programs.
Expected result: learning rates as tuned, test bits per character, mean of 5 seeds:

    tbptt  1.6e-2    1.777
    artbp  8e-3      1.811
    paired difference +0.034 +- 0.035 (95% t interval)
"""

import ml_collections


def get_config():
    """What differs from, or is worth repeating of, experiments.ptb.config.default_config()."""
    config = ml_collections.ConfigDict()
    config.arm = "artbp(50, alpha=4)"
    config.num_epochs = 3
    config.batch = 64
    config.shadow = {"every": 100}
    config.model = {"cell": "lstm", "hidden_size": 128}
    config.optimizer = {"name": "adam", "learning_rate": 8e-3}  # tbptt's: 1.6e-2
    return config
