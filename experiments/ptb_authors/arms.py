"""Declares the arms: the estimator, and the carry that enters each segment."""

from experiments.ptb_study.study import Compared

RATES = (3e-4, 1e-4)  # Adam's; 1e-4 is the one in the authors' logs

ARMS = {
    name: Compared(text, RATES, (), None)
    for name, text in {
        "tbptt-zero": "tbptt(50, segment_start='initial')",
        # New boundaries in each epoch, as ARTBP has.
        "tbptt-offset-zero": "tbptt(50, draw_offset=True, segment_start='initial')",
        "artbp-zero": "artbp(50, alpha=4, segment_start='initial')",
        "tbptt-carried": "tbptt(50)",
        "artbp-carried": "artbp(50, alpha=4)",
        # The boundaries of ARTBP, so the same contexts in training, with a biased gradient.
        "uncompensated-zero": "uncompensated(50, alpha=4, segment_start='initial')",
        "uncompensated-carried": "uncompensated(50, alpha=4)",
        "unbiased-carried": "unbiased_tbptt(50, hazard=0.75)",
    }.items()
}

# What each difference between two arms says.
PAIRS = (
    ("artbp-zero", "tbptt-zero", "the paper's comparison"),
    ("tbptt-offset-zero", "tbptt-zero", "new boundaries in each epoch alone"),
    ("artbp-zero", "tbptt-offset-zero", "ARTBP, where both have new boundaries"),
    ("uncompensated-zero", "tbptt-zero", "random lengths, new in each epoch"),
    ("uncompensated-zero", "tbptt-offset-zero", "random lengths alone"),
    ("artbp-zero", "uncompensated-zero", "compensation alone"),
    ("tbptt-carried", "tbptt-zero", "carrying the state in training"),
    ("artbp-carried", "tbptt-carried", "the paper's comparison, state carried"),
    ("uncompensated-carried", "tbptt-carried", "random lengths, new in each epoch, state carried"),
    ("artbp-carried", "uncompensated-carried", "compensation alone, state carried"),
    ("unbiased-carried", "tbptt-carried", "unbiased, on TBPTT's clock"),
)
