"""How far the state remembers where the gradient looks back k2 steps.

    python -m experiments.memory --config configs/memory/default.py --workdir DIR

Expected time: 12 minutes on 2 x86-64 cores busy with other work.
Expected result: experiments/results/memory/table.md; with a loss at every lag all but the readout
alone get 100 % at every lag, with a loss at lag 31 alone full BPTT and ARTBP come nearest to it.
"""

import ml_collections


def get_config():
    """The defaults of `experiments.memory.config`."""
    return ml_collections.ConfigDict()
