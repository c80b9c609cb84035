"""Fifteen ways to train for long dependencies on four tasks, at equal work.

    python -m experiments.long_memory --config configs/long_memory/default.py --workdir DIR

Expected time: about 50 minutes of CPU time, not measured in one piece.
Expected result: experiments/results/long_memory/table.md; so far 28 of 60 pairs.
"""

import ml_collections


def get_config():
    """The defaults of `experiments.long_memory.config`."""
    return ml_collections.ConfigDict()
