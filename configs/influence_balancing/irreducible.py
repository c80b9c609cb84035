"""A loss that cannot vanish: a biased gradient settles on a wrong θ, an unbiased one does not.

    python -m experiments.influence_balancing --config configs/influence_balancing/irreducible.py \
        --workdir results/influence_balancing_irreducible

The drive is multiplied by x_t = 1 + σ ε_t, σ = 1, drawn anew for each key. Where each method
settles is known in closed form (`experiments/influence_balancing/predictions.py`), also that
TBPTT 10 and the boundaries without compensation run away; the table sets it beside what training
finds.

Expected time: 21 s on 2 x86-64 cores, compilation included (36 s of processor time).
Expected result (128 keys; optimum −0.0879): TBPTT 100, 200 and 500 settle at 0.0265 ± 0.0003,
−0.0600 ± 0.0001 and −0.0792 ± 0.0001 (mean ± standard error; predicted 0.0264, −0.0601, −0.0794);
ARTBP 16 at −0.0875 ± 0.0007 (α = 4), −0.0875 ± 0.0007 (α = 6) and −0.0873 ± 0.0010 (geometric).
"""

import ml_collections


def get_config():
    """What differs from the main job."""
    config = ml_collections.ConfigDict()
    config.study = "settling"
    config.drive_noise = 1.0
    config.arms = (
        "artbp(16, alpha=4)",
        "artbp(16, alpha=6)",
        "artbp(16, law='geometric')",
        "tbptt(500)",
        "tbptt(200)",
        "tbptt(100)",
        "tbptt(10)",
        "uncompensated(16, alpha=4)",
    )
    return config
