"""What every test runs under: the CPU, a compilation cache of its own, strict promotion."""

import gc
import os
import shutil
import tempfile
from pathlib import Path

# Before JAX is imported, and inherited by the processes that tests start. A caller may choose
# another platform: JAX_PLATFORMS=cuda ./run tests.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("MPLBACKEND", "Agg")
# Most of the tests' time is compilation, and many compile the same programs, the twin that others
# are compared with above all. A cache for this process and those that it starts, gone at its end:
# nothing comes from an earlier run, and two processes of pytest-xdist never write the same file.
os.environ["JAX_ENABLE_COMPILATION_CACHE"] = "true"
os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="artbp-tests-")
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.05"
os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "0"

import hypothesis
import jax
import jaxlib
import pytest
from jax.extend.backend import get_compile_options

EXPERIMENT_TESTS = Path(__file__).parent / "experiments"

# How XLA makes code for a CPU, not what the code computes: fused operations in the older way, which
# takes half as long, and all of them in one module. XLA refuses options that it does not know.
QUICK_TO_COMPILE = {
    "xla_cpu_use_fusion_emitters": False,
    "xla_cpu_parallel_codegen_split_count": 1,
}
if not jaxlib.__version__.startswith("0.10."):
    QUICK_TO_COMPILE = {}
XLA_FLAGS = [f"--{name}={value}".lower() for name, value in QUICK_TO_COMPILE.items()]
get_compile_options(1, 1)  # reads XLA_FLAGS now: set for a child process, they are not for this one

# Tracing makes many objects and little garbage: a tenth of the time went into looking for it.
gc.set_threshold(200_000, 50, 100)

# The same examples in every run, and no deadline, because the first example compiles.
# The fixtures below only set a JAX context, which is the same for every example.
hypothesis.settings.register_profile(
    "artbp",
    deadline=None,
    derandomize=True,
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
)
hypothesis.settings.load_profile("artbp")


def pytest_unconfigure():
    """Deletes the compilation cache."""
    shutil.rmtree(os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)


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


def quick_compile_options(*args, **kwargs):
    """JAX's own options, and ours: `jax.jit` would take them too, but eager operations do not."""
    options = get_compile_options(*args, **kwargs)
    options.env_option_overrides = [*options.env_option_overrides, *QUICK_TO_COMPILE.items()]
    return options


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    """Few optimisations, for the tests, their fixtures and child processes: a third of the time.

    What a program computes and how often it is traced or compiled does not depend on them. Tests
    marked `optimised` compile as users do: those that measure memory, compare rounding, or compute
    for longer than they compile.
    """
    if item.get_closest_marker("optimised"):
        return (yield)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "true")
        if QUICK_TO_COMPILE:
            patch.setenv("XLA_FLAGS", " ".join([os.environ.get("XLA_FLAGS", ""), *XLA_FLAGS]))
            patch.setattr("jax._src.compiler.get_compile_options", quick_compile_options)
        jax.config.update("jax_disable_most_optimizations", True)
        try:
            return (yield)
        finally:
            jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture
def float64():
    """Float64 for one test; for a whole module: `pytestmark = pytest.mark.usefixtures("float64")`.

    JAX's default stays float32, as it is for users. The context covers the test and not the
    module's top level: make arrays inside tests and fixtures that ask for `float64` too.
    """
    with jax.enable_x64(True):
        yield
