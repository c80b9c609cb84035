"""What every test runs under: the CPU, no compilation cache, strict promotion for the library."""

import os
from pathlib import Path

# Before JAX is imported, and inherited by the processes that tests start. A caller may choose
# another platform: JAX_PLATFORMS=cuda ./run tests.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("MPLBACKEND", "Agg")
# A program found in a persistent cache would hide a compilation that a test counts or times.
os.environ["JAX_ENABLE_COMPILATION_CACHE"] = "false"

import hypothesis
import jax
import pytest

EXPERIMENT_TESTS = Path(__file__).parent / "experiments"

# The same examples in every run, and no deadline, because the first example compiles.
# The fixtures below only set a JAX context, which is the same for every example.
hypothesis.settings.register_profile(
    "artbp",
    deadline=None,
    derandomize=True,
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
)
hypothesis.settings.load_profile("artbp")


@pytest.fixture(autouse=True)
def strict_promotion(request):
    """The library's own tests: no implicit dtype or rank promotion, in float32 and float64 alike.

    The experiments' tests are excepted: optax's Adam raises an int32 count to a power, which
    strict promotion refuses.
    """
    if EXPERIMENT_TESTS in request.path.parents:
        yield
        return
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        yield


@pytest.fixture
def float64():
    """Float64 for one test; for a whole module: `pytestmark = pytest.mark.usefixtures("float64")`.

    JAX's default stays float32, as it is for users. The context covers the test and not the
    module's top level: make arrays inside tests and fixtures that ask for `float64` too.
    """
    with jax.enable_x64(True):
        yield
