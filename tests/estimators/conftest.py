"""The estimators' tests: many programs, each run a few times."""

import jax
import pytest


@pytest.fixture(autouse=True)
def compiled_quickly(request):
    """Few optimisations for tests in float64, which ask what a program means: a quarter less time.

    The others, which count traces or measure memory, compile as users do.
    """
    if "float64" not in request.fixturenames:
        yield
        return
    jax.config.update("jax_disable_most_optimizations", True)
    try:
        yield
    finally:
        jax.config.update("jax_disable_most_optimizations", False)
