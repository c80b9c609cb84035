"""What the benchmarks share: interleaved timing, child processes, the machine, tables and JSON."""

import argparse
import importlib
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax

from experiments.common import provenance

# Between two contenders: the idle threads of the last one stop spinning.
_PAUSE_SECONDS = 0.01


class Seconds(float):
    """What a contender returns that keeps its own time, in another process."""


def interleave(contenders: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each contender in each round: A B C, B C A, C A B, ...

    A first round, untimed, compiles and warms up. What a contender returns is waited for.
    """
    for contender in contenders.values():
        jax.block_until_ready(contender())
    names = list(contenders)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for index in range(rounds):
        first = index % len(names)
        for name in names[first:] + names[:first]:
            time.sleep(_PAUSE_SECONDS)
            start = time.perf_counter()
            result = jax.block_until_ready(contenders[name]())
            elapsed = time.perf_counter() - start
            seconds[name].append(float(result) if isinstance(result, Seconds) else elapsed)
    return seconds


def median_ratio(seconds: Mapping[str, Sequence[float]], name: str, base: str) -> float:
    """The median over rounds of name's time over base's in the same round."""
    pairs = zip(seconds[name], seconds[base], strict=True)
    return statistics.median(a / b for a, b in pairs)


def median_ms(seconds: Mapping[str, Sequence[float]], name: str) -> float:
    """The median time of a contender in milliseconds."""
    return 1e3 * statistics.median(seconds[name])


class Worker:
    """A child process that answers commands: one line in, one line of JSON out.

    It runs `python -m MODULE ARGUMENTS`, which ends in `serve`, with the persistent compilation
    cache off. Between commands it sleeps, so that contenders in several processes can be
    interleaved.
    """

    def __init__(self, module: str, arguments: Sequence[str], **environment: str) -> None:
        self._name = f"{module} {' '.join(arguments)}"
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            env={**os.environ, "JAX_ENABLE_COMPILATION_CACHE": "false", **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, command: str) -> Any:
        """The answer to a command; raises RuntimeError when the process has ended instead."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(command + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError(f"{self._name} ended with code {self._process.wait()}")
        return json.loads(answer)

    def close(self) -> None:
        """Ends the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def serve(handlers: Mapping[str, Callable[[], Any]]) -> None:
    """Answers the commands of a `Worker` until its pipe is closed."""
    for command in sys.stdin:
        print(json.dumps(handlers[command.strip()]()), flush=True)


def timed(function: Callable[[], Any]) -> float:
    """Seconds until what `function` returns is ready."""
    start = time.perf_counter()
    jax.block_until_ready(function())
    return time.perf_counter() - start


def optional_import(name: str) -> Any:
    """The module, or None and a line on how to install it."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        print(
            f"{name} is not installed, so its row is missing: pip install 'artbp[benchmarks]'",
            file=sys.stderr,
        )
        return None


def make_parser(description: str | None, rounds: int = 7) -> argparse.ArgumentParser:
    """A parser with the options that every benchmark has."""
    parser = argparse.ArgumentParser(description=(description or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=rounds, help="interleaved rounds")
    parser.add_argument("--results", help="JSON file to write the rows to")
    return parser


def report(
    rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str], results: str | None
) -> None:
    """Prints the rows as a table, and writes them to the file `results`, if one is named."""
    print_table(rows, columns)
    write_results(rows, results)


def print_table(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str]) -> None:
    """Prints the fields that `columns` gives a heading to as a Markdown table."""
    print(f"| {' | '.join(columns.values())} |")
    print("|" + "---|" * len(columns))
    for row in rows:
        print(f"| {' | '.join(_show(row.get(field)) for field in columns)} |")


def write_results(rows: Sequence[Mapping[str, Any]], results: str | None) -> None:
    """Writes the rows, the machine and the command to the file `results`, if one is named."""
    if results:
        content = {"command": _command(), "machine": provenance.machine(), "rows": list(rows)}
        with open(results, "w", encoding="utf-8") as file:
            json.dump(content, file, indent=2)
            file.write("\n")


def _command() -> str:
    """The command line without the file that the rows go to."""
    words = sys.argv[1:]
    if "--results" in words:
        index = words.index("--results")
        del words[index : index + 2]
    words = [word for word in words if not word.startswith("--results=")]
    return provenance.command(words)


def _show(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) else str(value)
