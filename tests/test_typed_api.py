"""The public names carry type annotations, all of them.

`tests/typed_program.py` is the other half: .ci/run checks it with the type checker, against the
installed wheel, as a user's checker would.
"""

import importlib
import inspect
from pathlib import Path

import pytest

import artbp

PACKAGE = Path(artbp.__file__).parent
MODULES = ["artbp"]
MODULES += [f"artbp.{name}" for name in artbp.__all__ if inspect.ismodule(getattr(artbp, name))]
ADAPTERS = ["artbp.adapters.linen", "artbp.adapters.nnx"]  # the others need packages of an extra


def written_here(function):
    """Whether a function stands in the package: a NamedTuple also has methods made by Python."""
    code = getattr(inspect.unwrap(function), "__code__", None)
    return code is not None and PACKAGE in Path(code.co_filename).parents


def functions_of(value):
    """A public function, or the public methods of a public class."""
    if inspect.isfunction(value):
        yield value
    elif inspect.isclass(value):
        for name, member in vars(value).items():
            member = getattr(member, "__func__", getattr(member, "fget", member))
            is_public = not name.startswith("_") or name in ("__init__", "__call__", "__new__")
            if is_public and inspect.isfunction(member) and written_here(member):
                yield member


def missing_annotations(function):
    signature = inspect.signature(function)
    missing = [
        name
        for name, parameter in signature.parameters.items()
        if parameter.annotation is parameter.empty and name not in ("self", "cls")
    ]
    constructs = function.__name__ in ("__init__", "__post_init__")
    if signature.return_annotation is signature.empty and not constructs:
        missing.append("return")
    return missing


@pytest.mark.parametrize("module", sorted([*MODULES, *ADAPTERS]))
def test_the_public_names_are_annotated(module):
    module = importlib.import_module(module)
    public = getattr(module, "__all__", ["adapt", "RNN"])
    functions = [f for name in public for f in functions_of(getattr(module, name))]
    assert functions or module is artbp.adapters
    missing = {function.__qualname__: missing_annotations(function) for function in functions}
    assert {name: names for name, names in missing.items() if names} == {}


def test_a_missing_annotation_is_found():
    class Example:
        def __call__(self, params, carry: int):
            """Lacks two annotations."""

    assert missing_annotations(Example.__call__) == ["params", "return"]
