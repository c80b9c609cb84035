"""Auxiliary losses: digits pixel by pixel, and a memory task, with a loss at the end only.

    python -m experiments.auxiliary --config configs/auxiliary/default.py --workdir DIR

Expected time: TODO
Expected result: experiments/results/auxiliary/table.md; TODO
"""

import ml_collections


def get_config():
    """The defaults of `experiments.auxiliary.config`."""
    return ml_collections.ConfigDict()
