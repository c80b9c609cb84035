"""Exploding gradients: truncation, ARTBP, clipping and small rates, from five spectral radii.

    python -m experiments.stability --config configs/stability/default.py \
        --workdir results/stability

Expected result: experiments/results/stability/table.md; the bound on a clipped step holds at 1,500
of 1,500, and TBPTT ends best from a spectral radius of 1.5.
"""

from experiments.stability.config import default_config

get_config = default_config
