"""python -m experiments.bias [--config FILE] [--set field=value] --workdir DIR."""

import jax
import ml_collections
from absl import flags

from artbp import diagnostics
from experiments.bias import problems, report
from experiments.bias.config import PROBLEMS, check_config, default_config
from experiments.bias.figure import make_figure
from experiments.bias.measure import measure
from experiments.common import cli, figures
from experiments.common import report as tables
from experiments.common.metrics import MetricsWriter


def main(config: ml_collections.FrozenConfigDict, command_line: cli.CommandLine) -> None:
    """Measures every system; writes bias.png and .svg, table.md, results.json and metrics."""
    check_config(config)
    with cli.from_the_start(config, command_line) as (workdir, say):
        rows, panels, sentences = [], [], []
        keys = jax.random.split(jax.random.key(config.seed), (len(PROBLEMS), 2))
        for name in config.problems:
            data_key, measure_key = keys[PROBLEMS.index(name)]
            # The character model is trained and measured as users do; the others to 1e-12.
            with jax.enable_x64(name != "characters"):
                problem = problems.make(name, config, data_key)
                found, gradient_report = measure(
                    config, name, problem, measure_key, progress_bar=command_line.progress_bar
                )
            say(f"{name}: {diagnostics.describe(gradient_report)}")
            rows += found
            panels.append((problem.label, gradient_report))
            sentences.append((name, diagnostics.describe(gradient_report)))
        with MetricsWriter(workdir.metrics_path) as writer:
            for row in rows:
                writer.write(row)
        figures.save(make_figure(panels), workdir.path / "bias.png")
        note = report.notes(config, rows, sentences)
        print(tables.write_results(workdir.path, rows, report.COLUMNS, note))


if __name__ == "__main__":
    flags.FLAGS.set_default("workdir", "results/bias")
    cli.run(main, default_config())
