"""Lists the experiments and their configurations, without importing JAX.

There is no list by hand. Everything is read from docstrings: the first line of the docstring of
`experiments/NAME/__init__.py` says what an experiment does. The docstring of a file in `configs`
begins with a line that says what it configures. It names the experiments that take the file in
commands `python -m experiments.NAME`, and has a paragraph `Expected time: ...`.
"""

import ast
import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]


class Config(NamedTuple):
    """A file in `configs`.

    Attributes:
        path: relative to the repository, as `--config` takes it there.
        title: the first line of its docstring.
        time: the paragraph after "Expected time:", in one line; empty where there is none.
        experiments: that take it.
    """

    path: str
    title: str
    time: str
    experiments: tuple[str, ...]


def configs(experiment: str | None = None) -> list[Config]:
    """Returns the configurations of one experiment, or all."""
    found = [_read_config(path) for path in sorted(ROOT.glob("configs/*/*.py"))]
    return [one for one in found if experiment is None or experiment in one.experiments]


def experiments() -> dict[str, str]:
    """Returns what each experiment does, by name: those that some configuration is for."""
    names = sorted({name for config in configs() for name in config.experiments})
    return {name: _title(ROOT / "experiments" / name / "__init__.py") for name in names}


def other_commands() -> dict[str, str]:
    """Returns what the other commands `python -m experiments.NAME` do, by name."""
    modules = {path.stem: path for path in ROOT.glob("experiments/[!_]*.py")}
    for path in ROOT.glob("experiments/*/__main__.py"):
        modules[path.parent.name] = path.with_name("__init__.py")
    known = experiments()
    return {name: _title(modules[name]) for name in sorted(modules.keys() - known)}


def _docstring(path: Path) -> str:
    return ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""


def _title(path: Path) -> str:
    return _docstring(path).split("\n", 1)[0]


def _read_config(path: Path) -> Config:
    text = _docstring(path)
    time = re.search(
        r"^Expected time: (.*?)(?=\n\n|\nExpected |\Z)", text, re.DOTALL | re.MULTILINE
    )
    return Config(
        path=path.relative_to(ROOT).as_posix(),
        title=_title(path),
        time=" ".join(time[1].split()) if time else "",
        experiments=tuple(dict.fromkeys(re.findall(r"python -m experiments\.(\w+)", text))),
    )
