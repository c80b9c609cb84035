"""Target propagation, TBPTT 4 and full BPTT on bits that are named ten steps later.

    python -m experiments.target_propagation --config configs/target_propagation/default.py

Expected time: not measured yet.
Expected result: experiments/results/target_propagation/table.md.
"""

import ml_collections


def get_config():
    """The defaults of `experiments.target_propagation.config`."""
    return ml_collections.ConfigDict()
