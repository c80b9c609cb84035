"""Counts the operations between devices in a compiled program, by reading its text."""

import re

_COMPUTATION = re.compile(r"^(?:ENTRY )?%?([\w.\-]+) \(.*\{\s*$")
_CALLED = re.compile(
    r"(?:body|condition|to_apply|calls|true_computation|false_computation)=%?([\w.\-]+)"
)
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
_COLLECTIVE = re.compile(
    r"= (.*?) (all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter)(?:-start)?\("
)


def collectives(text):
    """(types of the results of those outside of all loops, of those inside a loop)."""
    computations, lines = {}, []
    for line in text.splitlines():
        if match := _COMPUTATION.match(line):
            lines = computations.setdefault(match[1], [])
        lines.append(line)
    called = {name: set() for name in computations}
    to_visit = []
    for name, lines in computations.items():
        for line in lines:
            names = _CALLED.findall(line)
            for branches in _BRANCHES.findall(line):
                names += [branch.strip().lstrip("%") for branch in branches.split(",")]
            called[name].update(names)
            if " while(" in line:
                to_visit += names
    in_loops = set()
    while to_visit:
        name = to_visit.pop()
        if name not in in_loops:
            in_loops.add(name)
            to_visit += called[name]
    found = [], []
    for name, lines in computations.items():
        found[name in in_loops].extend(
            match[1] for line in lines if (match := _COLLECTIVE.search(line))
        )
    return found
