"""The main job: influence balancing at one learning rate, as in the paper.

    python -m experiments.influence_balancing

Expected time: not measured yet.
Expected result: not measured yet.
"""

from experiments.influence_balancing.config import default_config

get_config = default_config
