"""Teacher forcing against free runs on Mackey-Glass, under TBPTT and ARTBP.

    python -m experiments.teacher_forcing --config configs/teacher_forcing/default.py \
        --workdir results/teacher_forcing

Expected time: 3 min 18 s on 2 x86-64 cores.
Expected result: experiments/results/teacher_forcing/table.md; in the mean over horizons, 10 steps
of feedback forecast better than teacher forcing, 50 and 200 worse.
"""

import ml_collections


def get_config():
    """The defaults of `experiments.teacher_forcing.config`."""
    return ml_collections.ConfigDict()
