"""python -m experiments.compare [--config FILE] [--set field=value] [--workdir DIR]."""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import ml_collections
from absl import flags

from experiments.common import cli
from experiments.common.figures import save
from experiments.common.tables import write_results
from experiments.common.threads import in_threads
from experiments.compare import report, trainings
from experiments.compare.config import check_config, default_config
from experiments.compare.contenders import Contender, contenders
from experiments.compare.problems import Problem, problems

_NOTE = """\
Scores: of the balancing acts |θ − θ\\*| at the end over that at the start; of the task the loss
over the last part of the stream as a share of the memoryless loss. Influence balancing has n = 23
states, of which θ pushes the first p = 10 up and the others down; n and p set how far back its
gradient reaches. Medians over seeds, at the rate of the grid whose median over these seeds is best;
\\*: that rate is the first or the last of the grid. Every training may evaluate the cell equally
often, so that dear estimators see fewer time steps: a forward run is one evaluation, a product with
the derivative of a step another, and TBPTT and ARTBP take three per time step. The adapted length
is charged as if it were 16: where it settles at 1, it evaluates about five times as often as that,
where it settles at 256, less. In a chain: those, per time step, that wait for one another. Memory:
temporaries and state of one estimate. Pairs "a / b": influence balancing / the task.

Made by `python -m experiments.compare` with the configuration in config.json.
"""


def main(config: ml_collections.FrozenConfigDict, command_line: cli.CommandLine) -> None:
    """Trains every contender on every problem; writes the table, the figure and the numbers."""
    check_config(config)
    with cli.from_the_start(config, command_line) as (workdir, say):
        everyone = _chosen(contenders(config.mean_length), config.estimators)
        everything = _chosen(problems(config), config.problems)
        results = _train_all(config, everyone, everything, say)
        rows = report.table_rows(everyone, everything, results)
        figure = report.figure(
            everyone,
            everything,
            results,
            title="Every way to truncate, at the same cost",
            subtitle=_subtitle(config),
        )
        save(figure, workdir.path / "compare.png")
        print(write_results(workdir.path, rows, report.columns(everything), _NOTE))


def _chosen(everything: list[Any], names: Sequence[str]) -> list[Any]:
    """Those with these names, in their own order; all of them where no name is given."""
    return [one for one in everything if not names or one.name in names]


def _subtitle(config: Any) -> str:
    return (
        f"Updates every {config.mean_length} steps on average. Each training evaluates the cell as "
        f"often as TBPTT does in {config.num_steps:,} time steps.\n"
        f"Dots: medians over {config.num_seeds} seeds; bars: quartiles; learning rate tuned per "
        "estimator. Left is better. At the dashed line a training ended no better than it began; "
        "◂ nearer than 10⁻⁶, ▸ diverged."
    )


def _train_all(
    config: Any,
    everyone: list[Contender],
    everything: list[Problem],
    say: Callable[[str], None],
) -> report.Results:
    pairs = list(itertools.product(everything, everyone))
    done = itertools.count(1)

    def train(pair: tuple[Problem, Contender]) -> trainings.Result:
        problem, contender = pair
        result = trainings.train(config, contender, problem)
        say(
            f"[{next(done)}/{len(pairs)}] {problem.label}: {contender.label}: "
            f"{result.score[1]:.2g} at rate {result.rate:g}; {result.seconds:.0f} s"
        )
        return result

    found = in_threads(train, pairs, config.num_threads)
    keys = [(contender.name, problem.name) for problem, contender in pairs]
    return dict(zip(keys, found, strict=True))


if __name__ == "__main__":
    flags.FLAGS.set_default("workdir", "results/compare")
    cli.run(main, default_config())
