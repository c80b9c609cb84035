"""Declares the fields of a configuration, each with its default, its meaning and its checks.

    FIELDS = {
        "arms": Field(("artbp(16, alpha=4)", "tbptt(16)"), "the estimators", arms()),
        "num_seeds": Field(5, "runs that are reported", at_least(2, "a spread needs at least 2")),
        "learning_rates": Field((1e-3, 1e-2), "each arm gets the best of these", positive),
    }

A check is a function of the field's name and value that raises ConfigError. Checks that concern
several fields belong in the `check` of the study.
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ml_collections

from experiments.common.arms import parse
from experiments.common.config import check_seed
from experiments.common.errors import ConfigError

Check = Callable[[str, Any], None]


class Field:
    """One field: its default, which also gives its type, its meaning and its checks."""

    def __init__(self, default: Any, meaning: str, *checks: Check) -> None:
        self.default, self.meaning, self.checks = default, meaning, checks


Fields = Mapping[str, Field]


def default_config(fields: Fields) -> ml_collections.ConfigDict:
    """Returns every field with its default."""
    return ml_collections.ConfigDict({name: field.default for name, field in fields.items()})


def check_config(fields: Fields, config: Any) -> None:
    """Raises ConfigError for a value that fails one of its checks."""
    for name, field in fields.items():
        for check in field.checks:
            check(name, config[name])


def describe(fields: Fields) -> list[str]:
    """Returns one line "field=value: meaning" per field, for --help."""
    return [f"{name}={field.default}: {field.meaning}" for name, field in fields.items()]


def at_least(least: float, reason: str = "") -> Check:
    """A number, or each number of a tuple, is `least` or more; `reason` is told otherwise."""
    return _each_passes(lambda one: one >= least, reason or f"expected at least {least}")


def whole(least: int) -> Check:
    """A number, or each number of a tuple, is an integer, `least` or more."""
    expected = f"expected integers, {least} or more"
    return _each_passes(lambda one: type(one) is int and one >= least, expected)


def between(low: float, high: float) -> Check:
    """A number is above `low` and below `high`."""
    expected = f"expected a number between {low} and {high}"
    return _each_passes(lambda one: low < one < high, expected)


def share(name: str, value: float) -> None:
    """A number is above 0 and at most 1."""
    _each_passes(lambda one: 0 < one <= 1, "expected more than 0, at most 1")(name, value)


def positive(name: str, value: Any) -> None:
    """A number is above 0, or each of a tuple is."""
    if not all(one > 0 for one in _each(name, value)):
        expected = "numbers above 0" if isinstance(value, tuple) else "more than 0"
        raise ConfigError(f"{name} was given {value}: expected {expected}.")


def one_of(*known: str) -> Check:
    """A word, or each word of a tuple, is one of these."""

    def check(name: str, value: Any) -> None:
        for one in _each(name, value):
            if one not in known:
                raise ConfigError(
                    f"{name}: {one!r} is unknown; expected one of {', '.join(known)}."
                )

    return check


def each_once(name: str, value: Any) -> None:
    """A tuple is not empty and holds no value twice."""
    if len(set(_each(name, value))) < len(value):
        raise ConfigError(f"{name} was given {value}: name each once.")


def rising(name: str, value: Any) -> None:
    """A tuple is not empty, and its numbers rise."""
    if list(_each(name, value)) != sorted(set(value)):
        raise ConfigError(f"{name} was given {value}: expected a rising order, each once.")


seed: Check = check_seed  # a number is the seed of a 32-bit generator


def arms(own: Mapping[str, Callable] | None = None, finite_variance: bool = False) -> Check:
    """A tuple is not empty and holds arms that `experiments.common.arms.parse` reads, each once.

    `own` are entries that only this experiment has. With `finite_variance`, the polynomial law must
    have α above 3, so that the segment lengths have a finite variance.
    """

    def check(name: str, value: Any) -> None:
        with warnings.catch_warnings():
            if finite_variance:  # what the law warns of is refused below
                warnings.simplefilter("ignore", UserWarning)
            parsed = tuple(parse(text, own) for text in _each(name, value))
        each_once(name, parsed)
        by_label: dict[str, Any] = {}
        for arm in parsed:
            if (other := by_label.setdefault(arm.label, arm)) is not arm:
                raise ConfigError(
                    f"{name} holds {other.text} and {arm.text}, which tables would both call "
                    f"{arm.label!r}. Run them one at a time."
                )
        for arm in parsed:
            alpha = getattr(arm.law, "alpha", None)
            if finite_variance and alpha is not None and not alpha > 3:
                raise ConfigError(
                    f"{name}: {arm.text} has alpha = {alpha:g}: expected more than 3, so that the "
                    "lengths have a finite variance; the paper uses 4 and 6."
                )

    return check


def _each_passes(passes: Callable[[Any], bool], expected: str) -> Check:
    def check(name: str, value: Any) -> None:
        for one in _each(name, value):
            if not passes(one):
                raise ConfigError(f"{name} was given {one!r}: {expected}.")

    return check


def _each(name: str, value: Any) -> Sequence[Any]:
    """Returns the entries of a tuple, or the one value; ConfigError for an empty tuple."""
    if not isinstance(value, tuple):
        return (value,)
    if not value:
        raise ConfigError(f"{name} is empty: name at least one.")
    return value
