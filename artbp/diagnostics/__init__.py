"""Diagnostics: the bias and the noise of truncated gradients on your own model.

gradient_report        measures the bias of TBPTT, the noise of ARTBP and of unbiased TBPTT, and the
                       noise of the data for one model; `describe` gives them in words,
                       `report_table` in numbers, and `plot_report` as a figure
lag_profile            measures how gradients shrink with lag and how perturbations grow;
                       `plot_lag_profile` draws it
look_back_profile      measures how far back the gradient of a window reaches, for the look-backs
                       of `artbp.unbiased_tbptt`
shadow                 monitors bias and noise during a training without changing it
exact_expectation      computes mean and covariance of any estimator over all boundary patterns
truncation_covariance  computes the covariance that random boundaries add, exactly; small models
truncation_variance    estimates its trace with an interval, for models of any size
variance_along         computes the variance along one direction, exactly, for models of any size
gradients_of_gates     computes gradients for several patterns of gates on one forward pass
"""

from artbp.diagnostics.expectation import ExactExpectation, exact_expectation
from artbp.diagnostics.figures import plot_lag_profile, plot_report
from artbp.diagnostics.gate_gradients import gradients_of_gates
from artbp.diagnostics.gradient_report import gradient_report
from artbp.diagnostics.lag_profile import LagProfile, lag_profile
from artbp.diagnostics.look_back_profile import LookBackProfile, look_back_profile
from artbp.diagnostics.report import (
    GradientReport,
    LookBackNoise,
    TruncationBias,
    TruncationNoise,
    describe,
    law_name,
    report_table,
)
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
    "LookBackNoise",
    "LookBackProfile",
    "TruncationBias",
    "TruncationNoise",
    "TruncationVariance",
    "describe",
    "exact_expectation",
    "gradient_report",
    "gradients_of_gates",
    "lag_profile",
    "law_name",
    "look_back_profile",
    "plot_lag_profile",
    "plot_report",
    "report_table",
    "shadow",
    "truncation_covariance",
    "truncation_variance",
    "variance_along",
]
