"""Copy memory with lag 60: SAB with boundaries every 5 steps, TBPTT 5 and full BPTT.

    python -m experiments.long_memory --config configs/long_memory/default.py --workdir DIR

Expected time: 8 minutes beside other programs on 2 x86-64 cores.
Expected result: experiments/results/long_memory/table.md.
"""

import ml_collections


def get_config():
    """The defaults of `experiments.long_memory.config`."""
    return ml_collections.ConfigDict()
