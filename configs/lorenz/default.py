"""Noise reuse on the parameters of the Lorenz system: NRES, GPES, PES and others.

    python -m experiments.lorenz --config configs/lorenz/default.py --workdir DIR

Expected time: 8 minutes beside other programs on 2 x86-64 cores.
Expected result: experiments/results/lorenz/table.md; the variance of NRES is 0.62 times that of
PES, and that of GPES with new perturbations every 500 steps 0.41 times.
"""

import ml_collections


def get_config():
    """The defaults of `experiments.lorenz.config`."""
    return ml_collections.ConfigDict()
