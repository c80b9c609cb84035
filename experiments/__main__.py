"""Lists the experiments, their configurations and the expected times.

python -m experiments
"""

import difflib
import sys
import textwrap
from collections.abc import Sequence

from experiments.common import catalogue

_USAGE = """\
python -m experiments.NAME --config FILE --workdir DIR    runs an experiment
    --set field=value    changes a field of the configuration, any number of times
    --dry_run            prints the configuration and what is known of the cost; runs nothing
    --help               lists all flags and fields
"""


def listing() -> str:
    """Returns the text that the command prints."""
    parts = [_USAGE]
    for name, title in catalogue.experiments().items():
        parts.append(f"experiments.{name}\n{_wrapped(title, '  ')}")
        for config in catalogue.configs(name):
            time = f"Expected time: {config.time}" if config.time else ""
            lines = [f"  --config {config.path}", _wrapped(config.title, "      ")]
            parts.append("\n".join([*lines, _wrapped(time, "      ")]))
        parts[-1] += "\n"
    parts.append("Other commands")
    for name, title in catalogue.other_commands().items():
        parts.append(_wrapped(f"experiments.{name}: {title}", "  "))
    return "\n".join(parts) + "\n"


def main(arguments: Sequence[str]) -> int:
    """Prints the list, or a remark on arguments that cannot be used; returns the exit code."""
    names = [name for name in arguments if name not in ("--help", "-h")]
    if not names:
        print(listing(), end="")
        return 0
    known = [*catalogue.experiments(), *catalogue.other_commands()]
    name = names[0].removeprefix("experiments.")
    nearest = difflib.get_close_matches(name, known, n=1)
    hint = f" Did you mean python -m experiments.{nearest[0]}?" if nearest else ""
    print(
        f"{names[0]!r} was given: python -m experiments takes no arguments and lists what there "
        f"is. An experiment runs by python -m experiments.NAME.{hint}",
        file=sys.stderr,
    )
    return 2


def _wrapped(text: str, indent: str) -> str:
    return textwrap.fill(text, 100, initial_indent=indent, subsequent_indent=indent)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
