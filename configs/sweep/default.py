"""A sweep that shows the form of one: two arms on made-up text, and a study, each on two seeds.

    python -m experiments.sweep --config configs/sweep/default.py --workdir DIR --jobs 2

Expected time: 130 s of CPU time; 3 minutes on 2 x86-64 cores busy with other work.
Expected result: six runs finished. After one epoch of a few thousand characters, every training is
still above 4.5 bits; ARTBP has converged on influence balancing and TBPTT 10 has diverged.
"""


def get_config():
    """Each of `runs` at each point of `grid`."""
    characters = {
        "data.source": "generated",
        "data.generated_lines": 100,
        "model.hidden_size": 32,
        "batch": 8,
    }
    return {
        "grid": {"seed": (0, 1)},
        "runs": {
            "tbptt": {"experiment": "ptb", "set": {**characters, "arm": "tbptt(50)"}},
            "artbp": {"experiment": "ptb", "set": {**characters, "arm": "artbp(50, alpha=4)"}},
            "balancing": {
                "experiment": "influence_balancing",
                "set": {"arms": ("artbp(16, alpha=4)", "tbptt(10)"), "num_steps": 20_000},
            },
        },
    }
