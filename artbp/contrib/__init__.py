"""Tools beside the core: for few users, or of interest to research on truncation itself.

independent_runs   many whole trainings in one program, none waiting for another
sample_row_gates   boundaries of the rows of a batch drawn together (shared, antithetic, stratified)
multi_draw_gradient   several draws of boundaries on one forward pass; `coupling_variance`
sampled_bias       bias of random boundaries by sampling, with an interval from the exact variance
clipping_report    what clipping the gradient of each segment does to an estimator
optimal_law        the truncation law of least variance at a given mean and second moment
"""

from artbp.contrib.clipping import ClippingReport, clipping_report, clipping_reports
from artbp.contrib.couplings import sample_row_gates
from artbp.contrib.independent_runs import IndependentRuns, by_run, independent_runs
from artbp.contrib.multi_draw import SampledTrace, coupling_variance, multi_draw_gradient
from artbp.contrib.optimal_law import optimal_law
from artbp.contrib.sampled_bias import SampledBias, sampled_bias

__all__ = [
    "ClippingReport",
    "IndependentRuns",
    "SampledBias",
    "SampledTrace",
    "by_run",
    "clipping_report",
    "clipping_reports",
    "coupling_variance",
    "independent_runs",
    "multi_draw_gradient",
    "optimal_law",
    "sample_row_gates",
    "sampled_bias",
]
