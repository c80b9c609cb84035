"""The command line that the experiments share.

python -m experiments.NAME --workdir DIR [--config FILE.py] [--set field=value] [--resume]
                           [--dry_run] [--tensorboard] [--nocompilation_cache] [--noprogress_bar]

`--help` lists these flags and every field of the configuration with its default.
A run with checkpoints also has --checkpoint_every_seconds.
"""

import contextlib
import dataclasses
import hashlib
import platform
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import jax
import ml_collections
import pooch
from absl import flags

from experiments.common import catalogue, dry_run
from experiments.common.config import describe, load_config
from experiments.common.errors import ConfigError, ExperimentError, WorkdirError, run_guarded
from experiments.common.workdir import Workdir, open_workdir

_CONFIG = flags.DEFINE_string("config", None, "Python file with a function get_config().")
_SET_HELP = "Overrides a field of the configuration: --set field=value, any number of times."
_SET = flags.DEFINE_multi_string("set", [], _SET_HELP)
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of this run: new, empty, or to --resume.")
_RESUME = flags.DEFINE_bool("resume", False, "Go on with the run that --workdir holds.")
_DRY_RUN = flags.DEFINE_bool(
    "dry_run", False, "Print the configuration and what is known of the cost. Write nothing."
)
_TENSORBOARD = flags.DEFINE_bool("tensorboard", False, "Write TensorBoard events too.")
_PROGRESS_BAR = flags.DEFINE_bool("progress_bar", True, "Show progress, where there is a terminal.")
_CHECKPOINT = flags.DEFINE_float(
    "checkpoint_every_seconds",
    300.0,
    "Seconds between two checkpoints of a run that saves any, besides those after its epochs.",
    lower_bound=0.0,
)
_CACHE = flags.DEFINE_bool(
    "compilation_cache", True, "Keep compiled programs in the user's cache folder."
)


@dataclasses.dataclass(frozen=True)
class CommandLine:
    """The flags every experiment has, apart from those that make the configuration."""

    workdir: Path
    resume: bool
    tensorboard: bool
    progress_bar: bool | None
    compilation_cache: bool = True
    checkpoint_every_seconds: float = 300.0

    def for_runs(self) -> list[str]:
        """The flags that a command passes on to the runs that it starts."""
        passed = [f"--checkpoint_every_seconds={self.checkpoint_every_seconds}"]
        passed += ["--tensorboard"] * self.tensorboard
        return passed + ["--nocompilation_cache"] * (not self.compilation_cache)


def run(
    main: Callable[[ml_collections.FrozenConfigDict, CommandLine], None],
    defaults: ml_collections.ConfigDict,
    notes: str = "",
    field_lines: Sequence[str] | None = None,
    *,
    experiment: str = "",
    cost: Callable[[ml_collections.FrozenConfigDict], Sequence[str]] = lambda config: (),
    needs: str = "",
) -> None:
    """Parses the flags, loads the configuration, calls `main(config, command_line)`, and exits.

    Args:
        main: runs the experiment.
        defaults: every field of the configuration.
        notes, field_lines: text of `--help`; by default, the fields show their values.
        experiment: its name, for messages.
        cost: `cost(config)` returns the lines of --dry_run about parameters, steps and memory. It
            raises the errors that `main` raises for such a configuration.
        needs: what the experiment takes besides. If it is given, a call with neither --config nor
            --set is refused with this text and the list of configurations.
    """
    # absl shows the flags of the main module only, which it knows by the path of the program.
    for flag in (_CONFIG, _SET, _WORKDIR, _RESUME, _DRY_RUN, _TENSORBOARD, _PROGRESS_BAR, _CACHE):
        flags.FLAGS.register_key_flag_for_module(sys.argv[0], flags.FLAGS[flag.name])
    flags.FLAGS.register_key_flag_for_module(sys.argv[0], flags.FLAGS[_CHECKPOINT.name])
    fields = "\n".join(field_lines or describe(defaults))
    flags.FLAGS["set"].help = f"{_SET_HELP}\nFields and defaults:\n{fields}\n{notes}\n"

    def configured_main() -> None:
        if needs and _CONFIG.value is None and not _SET.value:
            raise ConfigError(_needs_a_config(experiment, needs))
        config = load_config(defaults, _CONFIG.value, _SET.value, experiment=experiment)
        if _DRY_RUN.value:
            print(dry_run.text(experiment, defaults, config, cost(config)))
            return
        if _WORKDIR.value is None:
            raise WorkdirError("No --workdir was given: name a folder for this run.")
        if _CACHE.value:
            enable_compilation_cache()
        command_line = CommandLine(
            workdir=Path(_WORKDIR.value).expanduser(),
            resume=_RESUME.value,
            tensorboard=_TENSORBOARD.value,
            progress_bar=None if _PROGRESS_BAR.value else False,
            compilation_cache=_CACHE.value,
            checkpoint_every_seconds=_CHECKPOINT.value,
        )
        main(config, command_line)

    run_guarded(configured_main)


def _needs_a_config(experiment: str, needs: str) -> str:
    commands = "".join(
        f"\n  python -m experiments.{experiment} --config {config.path} --workdir DIR\n"
        f"      {config.title}\n      Expected time: {config.time}"
        for config in catalogue.configs(experiment)
    )
    return f"No --config was given: experiments.{experiment} takes one of these.{commands}\n{needs}"


def enable_compilation_cache() -> None:
    """Turns JAX's persistent compilation cache on, in the user's cache folder.

    Each kind of processor has a folder of its own: a program for another one may end the process,
    and machines may share a home. A folder that the user has set (JAX_COMPILATION_CACHE_DIR) is
    left as it is.
    """
    if jax.config.jax_compilation_cache_dir is None:  # type: ignore[attr-defined]
        path = Path(pooch.os_cache("artbp")) / "compiled" / _kind_of_processor()
        jax.config.update("jax_compilation_cache_dir", str(path))


def _kind_of_processor(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """A name that processors with the same instructions share."""
    name = f"{platform.machine()} {platform.processor()}"
    with contextlib.suppress(OSError):  # it exists on Linux
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
        name += "".join(sorted({line for line in lines if line.startswith(("flags", "Features"))}))
    return hashlib.sha256(name.encode()).hexdigest()[:12]


@contextlib.contextmanager
def from_the_start(
    config: ml_collections.FrozenConfigDict, command_line: CommandLine
) -> Iterator[tuple[Workdir, Callable[[str], None]]]:
    """Opens the folder of an experiment of minutes, which writes no checkpoint.

    Gives the folder and `say(line)`, which prints a line of progress with the seconds so far, or
    nothing with --noprogress_bar. Prints the total time at the end. The same configuration may run
    again in the same folder: a line then says that it starts from the beginning.

    Nothing is written where this raises an ExperimentError itself. An error of the experiment
    leaves config.json behind, with which the same command can run again.
    """
    if command_line.tensorboard:
        raise ExperimentError(
            "--tensorboard was given: this experiment writes no TensorBoard events. Leave it out; "
            "the numbers are in results.json, and in metrics.jsonl where there are curves."
        )
    is_again = (command_line.workdir / "config.json").exists()
    workdir = open_workdir(command_line.workdir, config, resume=True)
    workdir.record_start(anew=True)
    if is_again:
        print(
            f"{workdir.path} holds this configuration already. The experiment has no checkpoints: "
            "it starts from the beginning and replaces the files.",
            file=sys.stderr,
        )
    started = time.perf_counter()

    def say(line: str) -> None:
        if command_line.progress_bar is not False:
            seconds = time.perf_counter() - started
            print(f"[{seconds:4.0f} s] {line}", file=sys.stderr, flush=True)

    yield workdir, say
    seconds = time.perf_counter() - started
    print(f"{seconds:.0f} s in all. Figures, tables and numbers: {workdir.path}")
