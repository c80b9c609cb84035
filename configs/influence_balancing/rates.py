"""Which learning rates find the optimum: seven rates, t counted in time steps or in updates.

    python -m experiments.influence_balancing --config configs/influence_balancing/rates.py \
        --workdir results/influence_balancing_rates

Expected time: not measured yet.
Expected result: not measured yet.
"""

import ml_collections


def get_config():
    """What differs from the main job."""
    config = ml_collections.ConfigDict()
    config.study = "rates"
    config.num_keys = 64
    config.grid_eta_0 = (1e-4, 3e-4, 1e-3, 2e-3, 3e-3, 5e-3, 1e-2)
    config.grid_schedules = ("time steps", "updates")
    return config
