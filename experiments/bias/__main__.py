"""Measures bias and noise of every way to truncate, on five systems.

python -m experiments.bias [--config FILE] [--set field=value] [--workdir DIR]
"""

from typing import Any

import jax

from artbp import diagnostics
from experiments.bias import report
from experiments.bias.config import FIELDS, NAMES, check, reads_penn_treebank
from experiments.bias.measure import measure
from experiments.bias.systems import SYSTEMS
from experiments.common.report import Report, table
from experiments.common.study import Say, Study
from experiments.ptb.data import DATA_DIR_VARIABLE


def run(config: Any, say: Say) -> Report:
    """Measures every system."""
    rows, panels, sentences = [], [], {}
    keys = jax.random.split(jax.random.key(config.seed), (len(NAMES), 2))
    for name in config.systems:
        data_key, measure_key = keys[NAMES.index(name)]
        # The character model is trained and measured as users do; the others to 1e-12.
        with jax.enable_x64(name != "characters"):
            system = SYSTEMS[name](config, data_key)
            found, gradient_report = measure(config, name, system, measure_key)
        sentences[name] = diagnostics.describe(gradient_report)
        say(f"{name}: {sentences[name]}")
        rows += found
        panels.append((system.label, gradient_report))
    text = table(rows, report.COLUMNS, report.notes(config, rows, sentences))
    environment = f"{DATA_DIR_VARIABLE}=FOLDER " if reads_penn_treebank(config) else ""
    return Report(text, rows, {"bias": report.make_figure(panels)}, environment=environment)


STUDY = Study("bias", FIELDS, run, check)

if __name__ == "__main__":
    STUDY.start()
