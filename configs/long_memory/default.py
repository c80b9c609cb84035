"""Copy memory with lag 60: SAB with boundaries every 5 steps, TBPTT 5 and full BPTT.

    python -m experiments.long_memory --config configs/long_memory/default.py --workdir DIR

Expected time: 15 minutes of one core, not measured in one piece.
Expected result: not known yet.
"""

import ml_collections


def get_config():
    """The defaults of `experiments.long_memory.config`."""
    return ml_collections.ConfigDict()
