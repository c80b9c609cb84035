"""Runs of the training loop that the tests of this folder share."""

import functools

import pytest
import tiny_run

from experiments.common import chunks


@pytest.fixture(scope="session")
def uninterrupted(tmp_path_factory):
    """(workdir, result) of a run that nothing disturbed."""
    path = tmp_path_factory.mktemp("uninterrupted")
    return path, tiny_run.run(path)


@pytest.fixture(scope="session", autouse=True)
def compile_once():
    """One compiled program for all runs with the same options: most of a tiny run's time."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("compiled_chunk", "host_driven_chunk"):
            patch.setattr(chunks, name, functools.cache(getattr(chunks, name)))
        yield
