"""Exploding gradients: truncation, ARTBP, clipping and small rates, from five spectral radii.

    python -m experiments.stability --config configs/stability/default.py \
        --workdir results/stability
"""

from experiments.stability.config import default_config

get_config = default_config
