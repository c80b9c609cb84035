"""python -m experiments.k1k2 [--config FILE] [--set field=value] --workdir DIR."""

import ml_collections
from absl import flags

from experiments.common import cli, figures
from experiments.common import report as tables
from experiments.common.metrics import MetricsWriter
from experiments.k1k2 import report
from experiments.k1k2.config import arms, check_config, default_config
from experiments.k1k2.figures import make_figure
from experiments.k1k2.texts import GENERATED, read_texts
from experiments.k1k2.timing import seconds_per_update
from experiments.k1k2.training import train_all
from experiments.ptb.data import DATA_DIR_VARIABLE


def main(config: ml_collections.FrozenConfigDict, command_line: cli.CommandLine) -> None:
    """Trains and times every arm; writes k1k2.png and .svg, table.md, results.json, metrics."""
    check_config(config)
    texts = read_texts(config)
    with cli.from_the_start(config, command_line) as (workdir, say):
        wanted = arms(config)
        if texts.name == GENERATED:
            print(f"No {DATA_DIR_VARIABLE} and no data_dir: this run is on {GENERATED}.")
        say(f"{texts.name}: {len(wanted)} arms.")
        trained = train_all(config, texts, wanted, say)
        say("Measuring seconds per update.")
        seconds = seconds_per_update(config, texts, wanted)
        rows = report.make_rows(config, texts.name, trained, seconds)
        with MetricsWriter(workdir.metrics_path) as writer:
            for row in rows:
                writer.write({"kind": "result", **row})
        figures.save(make_figure(config, rows), workdir.path / "k1k2.png")
        notes = report.notes(config, rows)
        print(tables.write_results(workdir.path, rows, report.columns(config), notes))


if __name__ == "__main__":
    flags.FLAGS.set_default("workdir", "results/k1k2")
    cli.run(main, default_config())
