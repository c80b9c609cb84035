"""Which learning rates find the optimum: seven rates, t counted in time steps or in updates.

    python -m experiments.influence_balancing --config configs/influence_balancing/rates.py \
        --workdir results/influence_balancing_rates

Expected time: 36 s on 2 x86-64 cores, compilation included (64 s of processor time).
Expected result (64 keys): with t in time steps, ARTBP 16 (all three laws) and TBPTT 200 converge
for all keys at every eta_0 from 1e-3 up, and are too slow at 1e-4. With t in updates, ARTBP 16
converges for at least 98 % of the keys from 1e-4 to 2e-3, TBPTT 200 from 1e-4 to 1e-3. TBPTT 10,
TBPTT 100 and the boundaries without compensation converge at no rate. At the larger rates (the
sign ↺) runs blow up first and come back as the rate falls, which a nonlinear model would hardly
survive.
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
