"""The figure of a report draws every line at its values, with readable labels."""

import numpy as np
from matplotlib.figure import Figure

from artbp import truncation
from artbp.diagnostics import (
    GradientReport,
    LookBackNoise,
    TruncationBias,
    TruncationNoise,
    describe,
    law_name,
    plot_report,
    report_table,
)

BIASES = [(1, 0.9, (0.8, 1.0), -1.3), (8, 0.2, (0.1, 0.3), -0.2), (32, 0.0, (0.0, 0.02), 0.0)]
LAWS = [truncation.geometric(8), truncation.polynomial(8, 4), truncation.polynomial(32, 4)]


def make_report():
    biases = [
        TruncationBias(
            length,
            size,
            interval,
            projection=along,
            projection_half_width=0.1,
            cosine=0.5,
            windows_to_matter=(0.5 / (size + 1e-9)) ** 2,
            windows_interval=(1.0, float("inf")),
        )
        for length, size, interval, along in BIASES
    ]
    noises = [
        TruncationNoise(
            law,
            0.3 / (i + 1),
            (0.2 / (i + 1), 0.4 / (i + 1)),
            variance_to_data=0.36 / (i + 1) ** 2,
            variance_interval=(0.1, 1.2),
            mean_length=law.mean_length,
            mean_memory=memory,
        )
        for i, (law, memory) in enumerate(zip(LAWS, (15.0, 29.0, 125.0), strict=True))
    ]
    return GradientReport(64, 20, 3.0, 0.5, (0.4, 0.6), biases, noises, 0.95)


def test_every_number_is_drawn():
    axes = plot_report(make_report(), Figure().add_subplot())
    drawn = [np.transpose(line.get_data()).tolist() for line in axes.get_lines()]
    assert [[1, 0.9], [8, 0.2]] in drawn  # a bias of 0 has no place on a logarithmic axis
    assert [[15, 0.3]] in drawn  # at their memory
    assert any(np.allclose(line, [[29, 0.15], [125, 0.1]]) for line in drawn if len(line) == 2)
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
    assert words.startswith(
        "For updates of one window, TBPTT's bias dominates data noise at K = 1; data noise "
        "dominates TBPTT's bias at K = 8, 32; ARTBP's noise and data noise are similar with "
        "polynomial(8, 4)."
    )
    assert "0.5 times the gradient of one window of 64 steps" in words
    assert "TBPTT 8 is biased by 20 % of the gradient" in words
    assert "an average over 6 windows" in words
    assert "TBPTT 1 has the wrong sign" in words
    # The law of least noise among those with a memory of at most 32 steps.
    assert "ARTBP with polynomial(8, 4) adds 9 % to the variance of the data" in words
    assert "at a memory of 29 steps" in words
    assert law_name(truncation.tabulated([0.5, 0.25])) == "tabulated(2 ages)"
    assert law_name(truncation.never()) == "never()"
    assert law_name(truncation.replay([3, 4, 5])) == "replay(3 lengths)"


def test_what_dominates():
    report = make_report()

    def first_sentence(**changes):
        words = describe(report._replace(**changes)).removeprefix("For updates of one window, ")
        return words.split(". ")[0]

    assert first_sentence(biases=[], noises=[]) == "only data noise was measured"
    assert first_sentence(noises=[]) == (
        "TBPTT's bias dominates data noise at K = 1; data noise dominates TBPTT's bias at K = 8, 32"
    )
    level = [bias._replace(interval=(0.3, 0.45)) for bias in report.biases[1:2]]
    assert first_sentence(biases=level, noises=[]) == (
        "TBPTT's bias and data noise are similar at K = 8"
    )
    for interval, words in [
        ((1.1, 3.0), "ARTBP's noise dominates data noise"),
        ((0.1, 0.9), "data noise dominates ARTBP's noise"),
    ]:
        noises = [noise._replace(variance_interval=interval) for noise in report.noises]
        found = first_sentence(biases=report.biases[1:], noises=noises)
        assert found.endswith(f"; {words} with polynomial(8, 4)")
    # No law fits into the memory of K = 1, so the law of least noise is described.
    assert "polynomial(32, 4)" in describe(report._replace(biases=report.biases[:1]))
    # A bias that is significant by its projection only.
    hidden = [b._replace(interval=(0.0, 0.3), projection=-0.2) for b in report.biases[1:2]]
    assert "TBPTT 8 is biased" in describe(report._replace(biases=hidden))
    unseen = [b._replace(projection_half_width=0.3) for b in hidden]
    assert "No bias of TBPTT is significant" in describe(report._replace(biases=unseen))


def with_look_backs(report):
    """Rows of unbiased TBPTT 8 and 32; at 32, c = 3/4 is cheapest and c = 1/2 least noisy."""
    laws = [truncation.geometric(4 / 3), truncation.geometric(2), truncation.tabulated([0.6, 0.5])]
    rows = [
        LookBackNoise(
            length, law, work, 5 * length, noise, (noise / 2, 2 * noise), variance, (0.01, 9)
        )
        for length, noises in ((8, ((0.4, 0.4), (0.3, 0.2), (0.31, 0.2))), (32, LOOK_BACKS))
        for law, work, (noise, variance) in zip(laws, (1 / 3, 1, 0.5), noises, strict=True)
    ]
    return report._replace(look_backs=rows)


LOOK_BACKS = ((0.11, 0.04), (0.05, 0.01), (0.09, 0.03))


def test_the_recommendation_follows_from_the_rows():
    report = with_look_backs(make_report())
    # The bias of TBPTT 32 is not significant, so nothing is to be removed.
    assert describe(report) == describe(make_report())
    *shorter, last = report.biases
    biased = report._replace(biases=[*shorter, last._replace(interval=(0.01, 0.02))])
    words = "To remove the bias of TBPTT, take unbiased TBPTT 32, "
    assert describe(biased).startswith(
        f"{words}c = 3/4: 22 % more work, 4 % more variance. For updates of one window, "
    )
    # More than a tenth of the variance of the data is not accepted where less can be had.
    dear = [row._replace(variance_to_data=4 * row.variance_to_data) for row in report.look_backs]
    assert describe(biased._replace(look_backs=dear)).startswith(
        f"{words}c = 1/2: 67 % more work, 4 % more variance."
    )
    # If no law is good, the least noisy one is described.
    bad = [row._replace(variance_to_data=600 * row.variance_to_data) for row in report.look_backs]
    assert describe(biased._replace(look_backs=bad)).startswith(
        f"{words}c = 1/2: 67 % more work, 6 times the variance of the data on top."
    )
    endless = [row._replace(variance_to_data=float("inf")) for row in report.look_backs]
    assert describe(biased._replace(look_backs=endless)).startswith("For updates of one window")


def test_look_backs_are_drawn_where_they_fit():
    axes = plot_report(with_look_backs(make_report()), Figure().add_subplot())
    drawn = [np.transpose(line.get_data()).tolist() for line in axes.get_lines()]
    assert any(np.allclose(line, [[40, 0.4], [160, 0.11]]) for line in drawn if len(line) == 2)
    texts = [text.get_text() for text in axes.texts]
    for words in ("c = 3/4", "c = 1/2", "optimal law at W = 0.5"):
        assert any(text.endswith(f"unbiased TBPTT, {words}") for text in texts)
    report = with_look_backs(make_report())
    huge = [row._replace(relative_noise=1e9) for row in report.look_backs]
    top = plot_report(report._replace(look_backs=huge), Figure().add_subplot()).get_ylim()[1]
    assert top == plot_report(make_report(), Figure().add_subplot()).get_ylim()[1]


def test_the_table_holds_everything():
    lines = [
        [cell.strip() for cell in line.split("|")[1:-1]]
        for line in report_table(with_look_backs(make_report())).splitlines()
    ]
    assert len({len(line) for line in lines}) == 1
    by_name = {line[0]: line[1:] for line in lines}
    assert by_name["BPTT through the window"][6:8] == ["0.5 [0.4, 0.6]", "1"]
    tbptt = ["8", "8", "1", "0.2 [0.1, 0.3]", "-0.200 ± 0.100", "0.500", "", "", "6.25 [1, ∞]"]
    assert by_name["TBPTT 8"] == tbptt
    artbp = ["32", "125", "1", "0", "0", "1", "+ 0.1 [0.0667, 0.133]", "+ 0.04 [0.1, 1.2]", ""]
    assert by_name["ARTBP, polynomial(32, 4)"] == artbp
    look_back = ["32", "160", "1.22", "0", "0", "1", "+ 0.11 [0.055, 0.22]", "+ 0.04 [0.01, 9]", ""]
    assert by_name["unbiased TBPTT 32, c = 3/4"] == look_back
    assert "unbiased TBPTT 8, optimal law at W = 0.5" in by_name
