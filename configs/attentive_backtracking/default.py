"""Sparse Attentive Backtracking, TBPTT 5 and full BPTT on copy memory with a lag of 60 steps.

    python -m experiments.attentive_backtracking \\
        --config configs/attentive_backtracking/default.py --workdir DIR

Expected time: 81 minutes on 2 CPU cores busy with other work; less alone.
Expected result: experiments/results/attentive_backtracking/table.md; SAB recalls two symbols in all
seeds and TBPTT none; with five symbols SAB recalls about half.
"""

import ml_collections


def get_config():
    """The defaults of `experiments.attentive_backtracking.config`."""
    return ml_collections.ConfigDict()
