"""Noise reuse on the parameters of the Lorenz system: NRES, GPES, PES and others.

    python -m experiments.lorenz --config configs/lorenz/default.py --workdir DIR

Expected time: TODO
Expected result: experiments/results/lorenz/table.md.
"""

import ml_collections


def get_config():
    """The defaults of `experiments.lorenz.config`."""
    return ml_collections.ConfigDict()
