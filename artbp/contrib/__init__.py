"""Tools outside the core, for a few users or for research on truncation itself.

independent_runs     runs many trainings in one program, none of which waits for another
sample_row_gates     draws the boundaries of several rows jointly (shared, antithetic, stratified)
multi_draw_gradient  averages several draws of boundaries on one forward pass;
                     `coupling_variance` samples the variance of such a scheme
sampled_bias         tests random boundaries for bias, with an interval from the exact variance
clipping_report      measures the bias of clipping the gradient of each segment
with_auxiliary_loss  adds losses of a decoder at random anchors (r-LSTM, p-LSTM)
optimal_law          finds the truncation law of least variance for a given mean and second moment
target_propagation   an estimator whose states between segments are variables of their own
"""

from artbp.contrib.auxiliary_loss import with_auxiliary_loss
from artbp.contrib.clipping import ClippingReport, clipping_report, clipping_reports
from artbp.contrib.couplings import sample_row_gates
from artbp.contrib.independent_runs import IndependentRuns, by_run, independent_runs
from artbp.contrib.multi_draw import SampledTrace, coupling_variance, multi_draw_gradient
from artbp.contrib.optimal_law import optimal_law
from artbp.contrib.sampled_bias import SampledBias, sampled_bias
from artbp.contrib.target_propagation import target_propagation

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
    "target_propagation",
    "with_auxiliary_loss",
]
