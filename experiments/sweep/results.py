"""What became of the runs of a sweep: a table with a row per run, and all their rows as JSON."""

import json
import re
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from experiments.common.metrics import without_nonfinite
from experiments.common.pool import START_LINE
from experiments.common.report import Column, markdown_table
from experiments.common.workdir import write_atomically
from experiments.sweep.plan import Run

_LONGEST_FAILURE = 300  # characters
# The headings, the rule under them, and the lines of a Markdown table.
_TABLE = re.compile(r"^(\|.*\|\n)(\|[-:| ]+\|\n)((?:\|.*\|\n)*)", re.MULTILINE)


class Outcome(NamedTuple):
    """What is known of a run.

    Attributes:
        state: finished, failed, running or not finished.
        failure: the last line of its error; empty unless it failed.
        results: its results.json, once it has finished: rows, or the numbers of one training.
    """

    state: str
    failure: str = ""
    results: Any = None


def failure(exit_code: int, log_path: Path) -> str:
    """Returns the last line of the error in a log, or the signal that ended the process."""
    if exit_code < 0:
        return f"ended by {signal.Signals(-exit_code).name}"
    text = log_path.read_text(encoding="utf-8", errors="replace").rpartition(START_LINE)[2]
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    # After the error, JAX writes a remark about its traceback.
    errors = [line for line in lines if re.match(r"[\w.]+(Error|Exception|Interrupt)\b", line)]
    found = (errors or lines or [f"exit code {exit_code}, and nothing in its log"])[-1]
    return found if len(found) <= _LONGEST_FAILURE else found[: _LONGEST_FAILURE - 3] + "..."


def write(folder: Path, outcomes: Mapping[Run, Outcome]) -> None:
    """Writes `rows.jsonl` and `table.md` of the sweep in `folder`."""
    lines = [json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows(outcomes)]
    write_atomically(folder / "rows.jsonl", "".join(lines))
    write_atomically(folder / "table.md", markdown(folder, outcomes))


def rows(outcomes: Mapping[Run, Outcome]) -> list[dict[str, Any]]:
    """Returns the rows of all runs, each with the name, the state and the given fields of its run.

    A finished run has the rows of its `results.json`, each as "row"; a run without results has one
    row, in which this is None.
    """
    found = []
    for run, outcome in outcomes.items():
        of_run = {"run": run.name, "experiment": run.experiment, "state": outcome.state}
        of_run |= {"failure": outcome.failure or None, "fields": dict(run.values)}
        results = outcome.results
        if isinstance(results, Mapping):  # of one training, which has its configuration in it
            results = [{name: value for name, value in results.items() if name != "config"}]
        found += [of_run | {"row": row} for row in results or [None]]
    return without_nonfinite(found)


def markdown(folder: Path, outcomes: Mapping[Run, Outcome]) -> str:
    """Returns the table of runs, and below it the tables of the experiments, run by run."""
    states = [outcome.state for outcome in outcomes.values()]
    counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    lines = [_line(run, outcome) for run, outcome in outcomes.items()]
    columns: list[Column] = [("run", "{run}")]
    columns += [(field, f"{{own[{field}]}}") for field in _differing(list(outcomes))]
    for name in ("state", "valid bits", "test bits", "results"):
        if any(line[name] for line in lines):
            columns.append((name, f"{{{name}}}"))
    parts = [f"# Sweep\n\n{len(states)} runs: {counts}.\n\n{markdown_table(lines, columns)}"]
    parts += _joined_tables(folder, outcomes)
    parts.append("Made by `python -m experiments.sweep` with the configuration in config.json.\n")
    return "\n".join(parts)


class _Fields(dict):
    """The own fields of a run, empty where another run has a field that this one has not."""

    def __missing__(self, field: str) -> str:
        return ""


def _line(run: Run, outcome: Outcome) -> dict[str, Any]:
    own = _Fields({field: str(value).replace("|", "\\|") for field, value in run.values})
    line = {"run": run.name, "own": own, "valid bits": "", "test bits": "", "results": ""}
    state = f"failed: {outcome.failure}" if outcome.failure else outcome.state
    line["state"] = state.replace("|", "\\|")
    if isinstance(outcome.results, Mapping):
        for name in ("valid", "test"):
            line[f"{name} bits"] = f"{outcome.results[f'{name}_bpc']:.4f}"
    elif outcome.results is not None:
        line["results"] = f"[table](runs/{run.name}/table.md)"
    return line


def _differing(runs: Sequence[Run]) -> list[str]:
    """The fields that have not the same value in all runs of an experiment."""
    first: dict[str, Mapping[str, Any]] = {}
    names: dict[str, bool] = {}
    for run in runs:
        own = dict(run.own)
        other = first.setdefault(run.experiment, own)
        for name in dict.fromkeys([*own, *other]):
            names[name] = names.get(name, False) or own.get(name) != other.get(name)
    return [name for name, differs in names.items() if differs]


def _joined_tables(folder: Path, outcomes: Mapping[Run, Outcome]) -> list[str]:
    """The tables with the same headings in the `table.md` of several runs, as one table."""
    joined: dict[tuple[str, str, str], list[str]] = {}
    for run, outcome in outcomes.items():
        path = folder / "runs" / run.name / "table.md"
        if outcome.results is None or not path.is_file():
            continue
        for head, rule, body in _TABLE.findall(path.read_text(encoding="utf-8")):
            lines = joined.setdefault((run.experiment, head, rule), [])
            lines += [f"| {run.name} {line}" for line in body.splitlines(keepends=True)]
    titled, parts = set(), []
    for (experiment, head, rule), lines in joined.items():
        title = "" if experiment in titled else f"## {experiment}\n\n"
        titled.add(experiment)
        parts.append(f"{title}| run {head}| --- {rule}{''.join(lines)}")
    return parts
