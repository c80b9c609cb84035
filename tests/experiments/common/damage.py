"""Damages runs at random, resumes them, and prints a table of what came of it.

    python tests/experiments/common/damage.py --damages 100 --kills 10 --seed 0

A run of `tiny_run` is interrupted in its second epoch. Each trial damages a copy of it in one place
and resumes the copy. The outcome is one of

    same       the run ended with the params, best params and rows of the undisturbed run
    passed     the same, from an older checkpoint: a warning names the one that is not used
    refused    an error in one line, and the files are as they were
    WRONG      the run ended with something else
    HANG       no end in two minutes
    TRACEBACK  any other exception, or an error of several lines

The last three must not occur. `--kills` starts runs in other processes and sends them SIGKILL at a
random moment after the first row of metrics; each must end as the undisturbed run when resumed.

pytest does not collect this file; `test_damaged_checkpoints.py` uses the kinds of damage.
"""

import argparse
import collections
import contextlib
import functools
import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import tiny_run

from experiments.common import chunks
from experiments.common.errors import ExperimentError, TrainingInterruptedError
from experiments.common.metrics import MetricsWriter
from experiments.common.workdir import hash_of_json

SECONDS = 120
OUTCOMES = ("same", "passed", "refused", "WRONG", "HANG", "TRACEBACK")


class Hang(BaseException):
    """The run that was resumed does not end."""


def some_file(run: Path, rng: random.Random) -> Path:
    """A file of the run, the large ones more often."""
    files = sorted(path for path in run.rglob("*") if path.is_file())
    return rng.choices(files, [path.stat().st_size + 1 for path in files])[0]


def some_checkpoint(run: Path, rng: random.Random) -> Path:
    """Each of them equally often; the newest of the latest twice as often."""
    latest = sorted((run / "checkpoints/latest").iterdir(), key=lambda path: int(path.name))
    return rng.choice([*latest, latest[-1], *(run / "checkpoints/best").iterdir()])


def flip_a_bit(run: Path, rng: random.Random) -> str:
    path = some_file(run, rng)
    content = bytearray(path.read_bytes())
    place = rng.randrange(len(content))
    content[place] ^= 1 << rng.randrange(8)
    path.write_bytes(content)
    return f"{path.relative_to(run)}, byte {place}"


def truncate(run: Path, rng: random.Random) -> str:
    path = some_file(run, rng)
    size = rng.randrange(path.stat().st_size)
    os.truncate(path, size)
    return f"{path.relative_to(run)} to {size} bytes"


def overwrite(run: Path, rng: random.Random) -> str:
    path = some_file(run, rng)
    content = bytearray(path.read_bytes())
    start = rng.randrange(len(content))
    content[start : start + 64] = bytes(64)
    path.write_bytes(content)
    return f"64 zeros in {path.relative_to(run)} at {start}"


def delete(run: Path, rng: random.Random) -> str:
    places = [some_file(run, rng), some_checkpoint(run, rng), some_checkpoint(run, rng) / "tree"]
    places += [run / "checkpoints", run / "checkpoints/latest", run / "checkpoints/best"]
    places += [some_checkpoint(run, rng) / "manifest.json", run / "metrics.jsonl"]
    place = rng.choice(places)
    shutil.rmtree(place) if place.is_dir() else place.unlink()
    return str(place.relative_to(run))


def swap(run: Path, rng: random.Random) -> str:
    """Two checkpoints, two files of the same name, or two files of one checkpoint."""
    one, other = some_checkpoint(run, rng), some_checkpoint(run, rng)
    while other == one:
        other = some_checkpoint(run, rng)
    what = rng.choice(["all", "manifest.json", "tree", "files"])
    if what == "files":
        one, other = rng.sample(sorted(p for p in one.rglob("*") if p.is_file()), 2)
    elif what != "all":
        one, other = one / what, other / what
    aside = run / "aside"
    one.rename(aside)
    other.rename(one)
    aside.rename(other)
    return f"{one.relative_to(run)} and {other.relative_to(run)}"


def replace(run: Path, rng: random.Random) -> str:
    """A folder or a pipe in the place of a file."""
    path = some_file(run, rng)
    path.unlink()
    make = rng.choice([os.mkdir, os.mkfifo])
    make(path)
    return f"{path.relative_to(run)} by {make.__name__}"


def edit(run: Path, rng: random.Random) -> str:
    """A counter of a checkpoint, with the hash of the manifest mended half of the time."""
    path = some_checkpoint(run, rng) / "manifest.json"
    manifest = json.loads(path.read_text())
    names = sorted(set(manifest["record"]) & set(COUNTERS)) or sorted(manifest["record"])
    name = rng.choice(names)
    value = manifest["record"][name]
    manifest["record"][name] = rng.choice([value + 1, value + 1000, 0, -1, None, "1"])
    if rng.random() < 0.2:
        del manifest["record"][name]
    manifest.pop("sha256")
    mended = rng.random() < 0.5
    manifest["sha256"] = hash_of_json(manifest) if mended else "0"
    path.write_text(json.dumps(manifest))
    new = manifest["record"].get(name, "absent")
    return f"{path.parent.relative_to(run)}: {name} {value} to {new}, mended: {mended}"


def edit_a_row(run: Path, rng: random.Random) -> str:
    path = run / "metrics.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    number = rng.randrange(len(lines))
    row = json.loads(lines[number])
    row["update"] += 1
    lines[number] = rng.choice([json.dumps(row) + "\n", "", "\n", "{}\n"])
    path.write_text("".join(lines))
    return f"row {number} of {len(lines)}"


# Those that decide how a run goes on.
COUNTERS = ("epochs", "evaluated_epochs", "chunks", "updates", "time_steps", "metrics_cursor")
DAMAGES = {
    "flip a bit": flip_a_bit,
    "truncate": truncate,
    "overwrite": overwrite,
    "delete": delete,
    "swap": swap,
    "replace": replace,
    "edit a counter": edit,
    "edit a row": edit_a_row,
}


def interrupted(path: Path, rows: int = 12) -> None:
    """Starts a run and interrupts it in its second epoch, with checkpoints of both kinds."""
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stderr(io.StringIO()):
        tiny_run.interrupt_after_rows(patch, rows, signal.SIGINT)
        with contextlib.suppress(TrainingInterruptedError):
            tiny_run.run(path)


def contents(path: Path) -> dict[str, bytes | None]:
    """Names and contents of all files; None for what is no regular file."""
    return {
        str(entry.relative_to(path)): entry.read_bytes() if entry.is_file() else None
        for entry in path.rglob("*")
        if not entry.is_dir()
    }


def resume(run: Path, expected: object) -> tuple[str, str]:
    """(outcome, the warning or error)."""

    def stop(number: int, frame: object) -> None:
        raise Hang

    before, printed = contents(run), io.StringIO()
    handler = signal.signal(signal.SIGALRM, stop)
    signal.alarm(SECONDS)
    try:
        with contextlib.redirect_stderr(printed):
            result = tiny_run.run(run, resume=True)
        tiny_run.assert_same_outcome(tiny_run.outcome(run, result), expected)
    except ExperimentError as error:
        message = f"{type(error).__name__}: {error}"
        ok = "\n" not in message and contents(run) == before
        return ("refused" if ok else "TRACEBACK"), message
    except AssertionError as error:
        return "WRONG", str(error)
    except Hang:
        return "HANG", ""
    except Exception as error:
        return "TRACEBACK", f"{type(error).__name__}: {error}"
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, handler)
    warnings = printed.getvalue()
    return ("passed" if "is not used" in warnings else "same"), warnings.strip()


def kill_at_random(run: Path, rng: random.Random, longest: float) -> str:
    """Starts the run in a process, and kills it at a random moment after its first row."""
    command = [sys.executable, __file__, "--child", str(run)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        process.stdout.readline()
        seconds = rng.uniform(0, longest)
        time.sleep(seconds)
        process.kill()
    state = "in a save" if any((run / "checkpoints").rglob("*.tmp")) else "not in a save"
    return f"after {seconds:.2f} s, {state}, exit code {process.returncode}"


def as_child(path: str) -> None:
    write = MetricsWriter.write

    def write_and_say(self: MetricsWriter, row: dict) -> None:
        write(self, row)
        print("row", flush=True)

    MetricsWriter.write = write_and_say  # type: ignore[method-assign]
    tiny_run.run(path, resume=True)


def table(counts: dict[str, collections.Counter]) -> str:
    lines = ["| damage | trials | " + " | ".join(OUTCOMES) + " |", "|---" * 8 + "|"]
    for name, found in [*counts.items(), ("all", sum(counts.values(), collections.Counter()))]:
        numbers = [found.total(), *(found[outcome] for outcome in OUTCOMES)]
        lines.append(f"| {name} | " + " | ".join(map(str, numbers)) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--damages", type=int, default=100)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        as_child(arguments.child)
        return
    for name in ("compiled_chunk", "host_driven_chunk"):  # compiled once, for all runs
        setattr(chunks, name, functools.cache(getattr(chunks, name)))
    rng = random.Random(arguments.seed)
    counts: dict[str, collections.Counter] = collections.defaultdict(collections.Counter)
    with tempfile.TemporaryDirectory() as place:
        undisturbed, base, run = (Path(place) / name for name in ("undisturbed", "base", "run"))
        result = tiny_run.run(undisturbed)
        started = time.perf_counter()
        tiny_run.run(Path(place) / "timed")
        longest = time.perf_counter() - started
        expected = tiny_run.outcome(undisturbed, result)
        interrupted(base)
        kinds: list[tuple[str, Callable[[Path, random.Random], str]]] = list(DAMAGES.items())
        for trial in range(arguments.damages):
            name, damage = kinds[trial % len(kinds)]
            shutil.rmtree(run, ignore_errors=True)
            shutil.copytree(base, run)
            what = damage(run, rng)
            outcome, message = resume(run, expected)
            counts[name][outcome] += 1
            print(f"{trial}: {name}: {what} -> {outcome}: {message}", flush=True)
        for trial in range(arguments.kills):
            shutil.rmtree(run, ignore_errors=True)
            what = kill_at_random(run, rng, longest)
            outcome, message = resume(run, expected)
            counts["SIGKILL"][outcome] += 1
            print(f"kill {trial}: {what} -> {outcome}: {message}", flush=True)
    print(table(counts))
    failures = ("WRONG", "HANG", "TRACEBACK")
    sys.exit(any(found[outcome] for found in counts.values() for outcome in failures))


if __name__ == "__main__":
    main()
