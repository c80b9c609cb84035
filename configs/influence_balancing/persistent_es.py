"""The form of google-research/persistent_es: the loss once at the end of each unroll of K steps.

    python -m experiments.influence_balancing \
        --config configs/influence_balancing/persistent_es.py \
        --workdir results/influence_balancing_persistent_es

Rate 1e-4, constant, 3,000 unrolls and K = 1, 10, 100 are the defaults and examples of that project.
With the loss at the end only, a loss is always seen from K steps back, where the summed loss is
seen from 1 to K steps back: so TBPTT 100 has the right sign here and the wrong one in the main job.
ARTBP is not in that project; its loss falls on every 16th step here, wherever its boundaries are.

Expected time: 10 s on 2 x86-64 cores, compilation included (16 s of processor time).
Expected result (128 keys): TBPTT 100 converged (|θ − θ*| = 1.3e-5), TBPTT 10 diverged, TBPTT 1
wrong direction (3.4); ARTBP 16 converged for all keys; without compensation all keys diverged.
"""

import ml_collections


def get_config():
    """What differs from the main job."""
    config = ml_collections.ConfigDict()
    config.loss_at = "unroll end"
    config.num_unrolls = 3000
    config.eta_0 = 1e-4
    config.schedule = "constant"
    config.arms = (
        "artbp(16, alpha=4)",
        "artbp(16, alpha=6)",
        "tbptt(100)",
        "tbptt(10)",
        "tbptt(1)",
        "uncompensated(16, alpha=4)",
    )
    return config
