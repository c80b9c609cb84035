"""A loss that cannot vanish: a biased gradient settles on a wrong θ, an unbiased one does not.

    python -m experiments.influence_balancing --config configs/influence_balancing/irreducible.py \
        --workdir results/influence_balancing_irreducible

The drive is multiplied by x_t = 1 + σ ε_t, σ = 1, drawn anew for each key. Where each method
settles is known in closed form (`experiments/influence_balancing/predictions.py`), also that
TBPTT 10 and the boundaries without compensation run away; the table sets it beside what training
finds.

Expected time: not measured yet.
Expected result: not measured yet.
"""

import ml_collections


def get_config():
    """What differs from the main job."""
    config = ml_collections.ConfigDict()
    config.study = "settling"
    config.drive_noise = 1.0
    config.methods = (
        "artbp-16-alpha-4",
        "artbp-16-alpha-6",
        "artbp-16-geometric",
        "tbptt-500",
        "tbptt-200",
        "tbptt-100",
        "tbptt-10",
        "uncompensated-16-alpha-4",
    )
    return config
