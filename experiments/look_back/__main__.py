"""Measures what unbiased TBPTT costs on a character LSTM, beside TBPTT's bias and the data's noise.

python -m experiments.look_back [--config FILE] [--set field=value] [--workdir DIR]
"""

from typing import Any

from experiments.common.report import Report, select, table
from experiments.common.study import Say, Study
from experiments.look_back import report, variances
from experiments.look_back.config import FIELDS, check, read_text
from experiments.look_back.staleness import Training


def run(config: Any, say: Say) -> Report:
    """Trains and measures at each learning rate; variances are those at the first rate."""
    text = read_text(config)
    training, rows = Training(config, text), []
    models = {0: training.first_params}
    for i, rate in enumerate(config.learning_rates):
        say(f"Training on {text.found.name} at learning rate {rate:g}.")
        found, params = training.run(rate)
        rows += found
        if i == 0:
            models |= params
    for updates, params in models.items():
        say(f"Measuring variances after {updates} updates.")
        rows += variances.measure(config, text, updates, params)
    words = table(select(rows, part="staleness"), report.COLUMNS, report.notes(config, text, rows))
    figure = report.make_figure(config, text, rows)
    return Report(words, rows, {"look_back": figure}, environment=text.found.environment)


STUDY = Study("look_back", FIELDS, run, check)

if __name__ == "__main__":
    STUDY.start()
