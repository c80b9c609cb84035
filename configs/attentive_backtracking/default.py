"""Sparse Attentive Backtracking, TBPTT 5 and full BPTT on copy memory with a lag of 60 steps.

    python -m experiments.attentive_backtracking --config configs/attentive_backtracking/default.py

Expected time: TIME on 2 CPU cores.
Expected result: experiments/results/attentive_backtracking/table.md
"""

import ml_collections


def get_config():
    """The defaults of `experiments.attentive_backtracking.config`."""
    return ml_collections.ConfigDict()
