"""How far the state remembers where the gradient looks back k2 steps.

python -m experiments.memory --config configs/memory/default.py --workdir DIR
"""

from experiments.memory.config import default_config

get_config = default_config
