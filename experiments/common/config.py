"""Configurations: plain Python files with a `get_config()`, checked against the defaults.

A configuration file names only what differs from the experiment's defaults, or all of it:

    # configs/ptb/small.py
    import ml_collections

    def get_config():
        config = ml_collections.ConfigDict()
        config.hidden_size = 128
        return config

A field of a section may be named with a dot there, as in {"optimizer.learning_rate": 1e-3}. The
command line overrides single fields: `--config configs/ptb/small.py --set seed=3 --set
optimizer.learning_rate=1e-3`. A field that the defaults do not have is refused, because a
misspelt field would otherwise run something else. Only a section that is empty in the defaults (the
further options of an optimiser) takes any field.
"""

import ast
import difflib
import runpy
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import ml_collections

from experiments.common.errors import ConfigError


def load_config(
    defaults: ml_collections.ConfigDict,
    path: str | Path | None = None,
    overrides: Iterable[str] = (),
    *,
    experiment: str = "",
) -> ml_collections.FrozenConfigDict:
    """The defaults with the values of the file, then with the overrides; frozen.

    Args:
        defaults: every field of the experiment, nested ConfigDicts allowed. A default of None
            accepts a value of any type, and no other default accepts None; an int is accepted
            where the default is a float.
        path: a Python file with a function `get_config()` that returns a ConfigDict or a dict.
        overrides: "section.field=value"; the value is a Python literal, or else a string.
        experiment: its name, for messages.
    """
    config = ml_collections.ConfigDict(defaults.to_dict())
    if path is not None:
        for name, value in flatten(_read_file(Path(path))).items():
            _merge(config, defaults, _in_sections(name, value), str(path), experiment)
    for override in overrides:
        name, value = _parse_override(override)
        _merge(config, defaults, _in_sections(name, value), f"--set {override}", experiment)
    try:
        return ml_collections.FrozenConfigDict(config)
    except ValueError as error:  # a dict within a list
        raise ConfigError(f"The configuration holds a dict within a list: {error}") from error


def flatten(values: Mapping[Any, Any], prefix: str = "") -> dict[str, Any]:
    """Returns {"section.field": value} for nested sections; an empty section is a value."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def check_seed(name: str, seed: int) -> None:
    """Raises ConfigError for a number that is not the seed of a 32-bit generator."""
    if not 0 <= seed < 2**32:
        raise ConfigError(f"{name} is {seed}: expected a number from 0 to {2**32 - 1}.")


def describe(config: Any, prefix: str = "") -> list[str]:
    """One line "section.field=value" per field, as `--set` takes it."""
    lines: list[str] = []
    for name, value in config.items():
        if not isinstance(value, ml_collections.ConfigDict):
            lines.append(f"{prefix}{name}={value}")
        elif value:
            lines += describe(value, f"{prefix}{name}.")
        else:
            lines.append(f"{prefix}{name}.ANY=value")
    return lines


def _read_file(path: Path) -> Mapping[str, Any]:
    if not path.is_file():
        raise ConfigError(f"There is no configuration file {path}: --config expects a Python file.")
    try:
        module = runpy.run_path(str(path))
        given = module["get_config"]() if "get_config" in module else None
    except SyntaxError as error:
        raise ConfigError(f"{path} is not valid Python: {error}") from error
    except Exception as error:
        raise ConfigError(f"{path} fails: {type(error).__name__}: {error}") from error
    if "get_config" not in module:
        raise ConfigError(f"{path} has no function get_config(): add one, returning a ConfigDict.")
    given = given.to_dict() if hasattr(given, "to_dict") else given
    if not isinstance(given, Mapping):
        raise ConfigError(
            f"get_config() of {path} returned {given!r}: expected a ConfigDict or a dict."
        )
    return given


def _parse_override(override: str) -> tuple[str, Any]:
    """The name and the value of "section.field=value"."""
    name, separator, text = override.partition("=")
    if not separator or not name:
        raise ConfigError(f"--set {override!r} was given: expected --set field=value.")
    try:
        return name, ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return name, text


def _in_sections(name: str, value: Any) -> dict[str, Any]:
    """{"section": {"field": value}} for the name "section.field"."""
    for part in reversed(name.split(".")):
        value = {part: value}
    return value


def _merge(
    config: Any, defaults: Any, given: Mapping[str, Any], where: str, experiment: str
) -> None:
    """Sets the given fields, of all sections, in `config`."""

    def merge(section: Any, known: Any, values: Mapping[str, Any], prefix: str) -> None:
        for name, value in values.items():
            full_name = f"{prefix}{name}"
            if known and name not in known:
                raise ConfigError(f"{where}: {_unknown(config, full_name, experiment)}")
            default = section.get(name)
            if not isinstance(default, ml_collections.ConfigDict):
                with section.ignore_type():
                    section[name] = _checked(value, known.get(name, default), full_name, where)
            elif isinstance(value, Mapping):
                merge(default, known.get(name, {}), value, f"{full_name}.")
            else:
                fields = f"with the fields {', '.join(default)}" if default else "of fields"
                raise ConfigError(
                    f"{where}: {full_name} is a section {fields}, and was given {value!r}: set "
                    "one of its fields."
                )

    merge(config, defaults, given, "")


def _unknown(config: Any, name: str, experiment: str) -> str:
    """The message for an unknown field, with the nearest one by full name or by its last part."""
    known = [line.partition("=")[0].removesuffix(".ANY") for line in describe(config)]
    near = difflib.get_close_matches(name, known, n=1)
    if not near:
        last_parts = [field.rpartition(".")[2] for field in known]
        found = difflib.get_close_matches(name.rpartition(".")[2], last_parts, n=1)
        near = [known[last_parts.index(part)] for part in found]
    hint = f" Did you mean {near[0]}?" if near else ""
    of = f" of experiments.{experiment}" if experiment else ""
    return f"unknown config field {name!r}{of}.{hint} Known fields: {', '.join(known)}."


def _checked(value: Any, default: Any, full_name: str, where: str) -> Any:
    if default is None or type(value) is type(default):
        return value
    if isinstance(default, float) and type(value) is int:
        return float(value)
    if isinstance(default, tuple) and isinstance(value, list):
        return tuple(value)
    raise ConfigError(
        f"{where}: {full_name} was given {value!r} ({type(value).__name__}), "
        f"expected {type(default).__name__} as in the default {default!r}."
    )
