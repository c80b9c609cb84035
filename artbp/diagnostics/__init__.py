"""Measuring truncation on your own model: bias, noise, and how far back gradients come from.

gradient_report        bias of TBPTT, noise of ARTBP, noise of the data: one model, one unit;
                       `describe` in words, `report_table` in numbers, `plot_report` as a figure
exact_expectation      mean and covariance of any estimator over its boundaries, by enumeration
truncation_covariance  the covariance that random boundaries add, exactly; small models
truncation_variance    its trace with an interval, for models of any size
variance_along         the variance along one direction, exactly, for models of any size
shadow                 bias and noise beside a running training, without touching it
lag_profile            gradients by lag: their decay, their Gram matrix, the growth of the dynamics;
                       `plot_lag_profile` draws it
gradients_of_gates     gradients for several patterns of gates on one forward pass
"""

from artbp.diagnostics.expectation import ExactExpectation, exact_expectation
from artbp.diagnostics.figure import plot_report
from artbp.diagnostics.gate_gradients import gradients_of_gates
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
from artbp.diagnostics.shadow import shadow
from artbp.diagnostics.variance import (
    TruncationVariance,
    truncation_covariance,
    truncation_variance,
    variance_along,
)

__all__ = [
    "ExactExpectation",
    "GradientReport",
    "LagProfile",
    "TruncationBias",
    "TruncationNoise",
    "TruncationVariance",
    "describe",
    "exact_expectation",
    "gradient_report",
    "gradients_of_gates",
    "lag_profile",
    "law_name",
    "plot_lag_profile",
    "plot_report",
    "report_table",
    "shadow",
    "truncation_covariance",
    "truncation_variance",
    "variance_along",
]
