"""Learning rates learned through inner training, by full BPTT, TBPTT, ARTBP, unbiased TBPTT, PES.

    python -m experiments.hyperparameters --config configs/hyperparameters/default.py \
        --workdir results/hyperparameters

Expected time: some minutes on 2 cores of an x86-64 server (28 beside much other work).
Expected result: experiments/results/hyperparameters/table.md; below the best rate at the end TBPTT
has the wrong sign, and with 4 or 16 steps it learns a worse schedule than ARTBP 16 and
unbiased TBPTT 16.
"""

import ml_collections


def get_config():
    """The defaults of experiments.hyperparameters.config.FIELDS."""
    return ml_collections.ConfigDict()
