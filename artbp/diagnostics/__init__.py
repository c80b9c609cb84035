"""Measuring truncation on your own model: bias, noise, and how far back gradients come from.

gradient_report        bias of TBPTT, noise of ARTBP, noise of the data: one model, one unit;
                       `describe` in words, `report_table` in numbers, `plot_report` as a figure
exact_expectation      mean and covariance of any estimator over its boundaries, by enumeration
truncation_covariance  the covariance that random boundaries add, exactly; small models
truncation_variance    its trace with an interval, for models of any size
variance_along         the variance along one direction, exactly, for models of any size
sampled_bias           the bias of random boundaries, with an interval from the exact variance
shadow                 bias and noise beside a running training, without touching it
lag_profile            gradients by lag: their decay, their Gram matrix, the growth of the dynamics;
                       `plot_lag_profile` draws it
clipping_report        what clipping the gradient of each segment does to an estimator
multi_draw_gradient    several draws of boundaries on one forward pass; `coupling_variance`
"""

from artbp.diagnostics.clipping import ClippingReport, clipping_report, clipping_reports
from artbp.diagnostics.expectation import ExactExpectation, exact_expectation
from artbp.diagnostics.figure import plot_report
from artbp.diagnostics.gradient_report import gradient_report
from artbp.diagnostics.lag_figure import plot_lag_profile
from artbp.diagnostics.lag_profile import LagProfile, lag_profile
from artbp.diagnostics.report import (
    GradientReport,
    TruncationBias,
    TruncationNoise,
    describe,
    law_name,
)
from artbp.diagnostics.report_table import report_table
from artbp.diagnostics.sampled_bias import SampledBias, sampled_bias
from artbp.diagnostics.shadow import shadow
from artbp.diagnostics.variance import (
    TruncationVariance,
    truncation_covariance,
    truncation_variance,
    variance_along,
)
from artbp.diagnostics.variance_reduction import (
    SampledTrace,
    coupling_variance,
    gradients_of_gates,
    multi_draw_gradient,
)

__all__ = [
    "ClippingReport",
    "ExactExpectation",
    "GradientReport",
    "LagProfile",
    "SampledBias",
    "SampledTrace",
    "TruncationBias",
    "TruncationNoise",
    "TruncationVariance",
    "clipping_report",
    "clipping_reports",
    "coupling_variance",
    "describe",
    "exact_expectation",
    "gradient_report",
    "gradients_of_gates",
    "lag_profile",
    "law_name",
    "multi_draw_gradient",
    "plot_lag_profile",
    "plot_report",
    "report_table",
    "sampled_bias",
    "shadow",
    "truncation_covariance",
    "truncation_variance",
    "variance_along",
]
