"""Compares TBPTT(k1, k2), updates every k1 steps that look back k2, on the next character.

python -m experiments.k1k2 [--config FILE] [--set field=value] [--workdir DIR]
"""

from typing import Any

from experiments.common.report import Report, table
from experiments.common.study import Say, Study
from experiments.k1k2 import report
from experiments.k1k2.config import FIELDS, arms, check
from experiments.k1k2.training import read_texts, seconds_per_update, train_all
from experiments.ptb.data import DATA_DIR_VARIABLE


def run(config: Any, say: Say) -> Report:
    """Trains and times every arm."""
    texts, wanted = read_texts(config), arms(config)
    found = texts.found
    if found.is_generated:
        print(f"No {DATA_DIR_VARIABLE} and no data_dir: this run is on {found.name}.")
    say(f"{found.name}: {len(wanted)} arms.")
    trained = train_all(config, texts, wanted, say)
    say("Measuring seconds per update.")
    seconds = seconds_per_update(config, texts, wanted)
    rows = report.make_rows(config, found.name, trained, seconds)
    text = table(rows, report.columns(config), report.notes(config, rows))
    figure = report.make_figure(config, rows)
    return Report(text, rows, {"k1k2": figure}, environment=found.environment)


STUDY = Study("k1k2", FIELDS, run, check, splits_runs=True)

if __name__ == "__main__":
    STUDY.start()
