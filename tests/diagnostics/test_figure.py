"""The figure of a report: every line is drawn at its values, with labels that can be read."""

import numpy as np
from matplotlib.figure import Figure

from artbp import truncation
from artbp.diagnostics import (
    GradientReport,
    TruncationBias,
    TruncationNoise,
    describe,
    law_name,
    plot_report,
)

BIASES = [(1, 0.9, (0.8, 1.0), -1.3), (8, 0.2, (0.1, 0.3), -0.2), (32, 0.0, (0.0, 0.02), 0.0)]
LAWS = [truncation.geometric(8), truncation.polynomial(8, 4), truncation.polynomial(32, 4)]


def make_report():
    biases = [
        TruncationBias(
            length, size, interval, along, 0.1, 0.5, size / 0.5, (0.5 / (size + 1e-9)) ** 2
        )
        for length, size, interval, along in BIASES
    ]
    noises = [
        TruncationNoise(
            law, 0.3 / (i + 1), (0.2 / (i + 1), 0.4 / (i + 1)), 0.36, law.mean_length, 20.0
        )
        for i, law in enumerate(LAWS)
    ]
    return GradientReport(64, 20, 3.0, 0.5, biases, noises, 0.95)


def test_every_number_is_drawn():
    axes = plot_report(make_report(), Figure().add_subplot())
    drawn = [np.transpose(line.get_data()).tolist() for line in axes.get_lines()]
    assert [[1, 0.9], [8, 0.2]] in drawn  # a bias of 0 has no place on a logarithmic axis
    assert [[8, 0.3]] in drawn
    assert any(np.allclose(line, [[8, 0.15], [32, 0.1]]) for line in drawn if len(line) == 2)
    assert any(line[0][1] == line[-1][1] == 0.5 for line in drawn)
    texts = [text.get_text() for text in axes.texts]
    assert len(texts) == 5
    assert any("geometric" in text for text in texts)
    assert any("polynomial, α = 4" in text for text in texts)
    places = sorted(text.get_position()[1] for text in axes.texts)
    assert min(np.diff(places)) > 0.059
    assert axes.get_title(loc="left").replace("\n", " ") == describe(make_report())
    assert plot_report(make_report(), axes) is axes


def test_the_words():
    words = describe(make_report())
    assert "0.5 times the gradient of one window of 64 steps" in words
    assert "TBPTT 8 is biased by 20 % of the gradient" in words
    assert "an average over 6 windows" in words
    assert "TBPTT with K up to 1 has the wrong sign" in words
    assert "ARTBP with polynomial(32, 4) adds 36 % to the variance of the data" in words
    assert law_name(truncation.tabulated([0.5, 0.25])) == "tabulated(2 ages)"
    assert law_name(truncation.never()) == "never()"
