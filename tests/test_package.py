"""The package as a whole: names, version, imports, and what the repository may hold."""

import ast
import importlib.metadata
import inspect
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from faults import check_faults

import artbp

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "artbp"
LIBRARY_IMPORTS = {"artbp", "jax", "jaxlib", "numpy", "optax", "chex", "scipy"}
LIBRARY_IMPORTS |= sys.stdlib_module_names
# Each adapter may import its own library, and no other module may.
ADAPTER_IMPORTS = {"linen": "flax", "nnx": "flax", "haiku": "haiku", "equinox": "equinox"}


def _project():
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def _library_modules():
    modules = sorted(PACKAGE.rglob("*.py"))
    assert modules, f"no modules under {PACKAGE}"
    return modules


def _imported_modules(path):
    """The absolute name of every module that the file imports, at any depth of its code."""
    package = path.relative_to(ROOT).parent.parts
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join((*parents, *filter(None, [node.module])))
            yield module
            # `from artbp import estimators` names a module too.
            yield from (f"{module}.{alias.name}" for alias in node.names)


def _public_names():
    """(module, name) of all that the library exports, by its modules' `__all__`."""
    for module in (artbp, artbp.adapters, artbp.cells, artbp.truncation, artbp.unrolls):
        yield from ((module, name) for name in module.__all__)


def test_every_module_can_be_imported():
    """Those of the benchmarks too, which no other test runs."""
    paths = [
        path
        for folder in ("artbp", "experiments", "benchmarks")
        for path in ROOT.glob(f"{folder}/**/*.py")
    ]
    names = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in paths]
    code = "\n".join(f"import {name.removesuffix('.__init__')}" for name in sorted(names))
    process = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr


def test_public_names_are_listed_once_and_present():
    """Their order is ruff's to keep (RUF022)."""
    names = list(_public_names())
    assert len(names) == len(set(names))
    assert [(module, name) for module, name in names if not hasattr(module, name)] == []


def test_every_public_attribute_is_listed():
    """What `artbp/__init__.py` imports without an underscore is public, so it is in `__all__`."""
    imported = {
        alias.asname or alias.name
        for node in ast.walk(ast.parse((PACKAGE / "__init__.py").read_text()))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    assert {name for name in imported if not name.startswith("_")} <= set(artbp.__all__)


def test_every_public_name_has_a_docstring_of_its_own():
    for module, name in _public_names():
        value = getattr(module, name)
        if not (inspect.ismodule(value) or inspect.isclass(value) or inspect.isroutine(value)):
            continue  # a constant: the string below its definition is for readers and Sphinx
        docstring = inspect.getdoc(value)
        assert docstring, f"{module.__name__}.{name} has no docstring"
        # The docstring that `dataclass` and `NamedTuple` make up is the signature again.
        assert not docstring.startswith(f"{name}("), f"{module.__name__}.{name}: generated"


def test_the_version_is_the_same_everywhere():
    version = _project()["version"]
    assert importlib.metadata.version("artbp") == version
    assert artbp.__version__ == version
    assert f"version: {version}\n" in (ROOT / "CITATION.cff").read_text()
    assert f"## {version}" in (ROOT / "CHANGELOG.md").read_text()


def test_the_package_is_marked_as_typed():
    assert (PACKAGE / "py.typed").is_file()


def test_import_needs_only_the_array_libraries():
    """`import artbp` stays light, beside `import jax`: nothing of the experiments, and no scipy.

    The library uses scipy in a few functions, which import it where they are called.
    """
    code = (
        "import sys, artbp\n"
        "heavy = {'flax', 'haiku', 'equinox', 'orbax', 'matplotlib', 'ml_collections'}\n"
        "heavy |= {'tensorboardX', 'experiments', 'scipy', 'pandas', 'rich', 'tqdm'}\n"
        "print(*sorted(heavy & set(sys.modules)))"
    )
    process = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert process.returncode == 0, process.stderr
    assert process.stdout.split() == []


def test_the_library_imports_only_what_it_declares():
    """Above all not `experiments`, at any depth."""
    for path in _library_modules():
        allowed = set(LIBRARY_IMPORTS)
        if path.parent.name == "adapters":
            allowed.add(ADAPTER_IMPORTS.get(path.stem))
        foreign = {name.split(".")[0] for name in _imported_modules(path)} - allowed
        assert not foreign, f"{path.relative_to(ROOT)} imports {sorted(foreign)}"


@pytest.mark.parametrize(
    ("lower", "upper"),
    [
        ("unrolls", ("artbp.estimators", "artbp.diagnostics", "artbp.cells")),
        ("truncation", ("artbp.estimators", "artbp.diagnostics", "artbp.unrolls")),
        ("adapters", ("artbp.estimators", "artbp.diagnostics", "artbp.cells")),
        ("estimators", ("artbp.diagnostics", "artbp.cells")),
    ],
)
def test_dependencies_point_one_way(lower, upper):
    """Estimators and diagnostics build on unrolls and truncation, never the other way round."""
    paths = [
        path
        for path in _library_modules()
        if path.relative_to(PACKAGE).parts[0].removesuffix(".py") == lower
    ]
    assert paths, f"no module artbp.{lower}"
    for path in paths:
        wrong = [name for name in _imported_modules(path) if name.startswith(upper)]
        assert not wrong, f"{path.relative_to(ROOT)} imports {wrong}"


# The README reports 0.0002 to 0.06 over five seeds, of which this is one, and 0.66 for TBPTT.
@pytest.mark.parametrize(
    ("num_updates", "highest"), [(1000, 0.65), pytest.param(5000, 0.1, marks=pytest.mark.slow)]
)
def test_the_python_of_the_readme_runs(num_updates, highest):
    """Its blocks, one after the other, in a process with JAX's defaults."""
    text = (ROOT / "README.md").read_text()
    blocks = re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    assert len(blocks) == text.count("```python")
    program = "\n".join(blocks)
    assert program.count("range(5000)") == 1
    program = program.replace("range(5000)", f"range({num_updates})")
    process = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert process.returncode == 0, process.stderr
    loss = re.search(r"^loss per bit ([0-9.e-]+)$", process.stdout, re.MULTILINE)
    assert loss is not None
    assert float(loss[1]) < highest


DATA = {"stream", "window", "xs", "inputs", "targets", "bits", "data", "batch"}


def data_in_closures(code):
    """Names of data that jitted functions of a program close over."""
    tree, found = ast.parse(code), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            jitted = [node] * any("jit" in ast.unparse(d) for d in node.decorator_list)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("jit"):
            jitted = [argument for argument in node.args if isinstance(argument, ast.Lambda)]
        else:
            continue
        for function in jitted:
            loaded = {n.id for n in ast.walk(function) if isinstance(n, ast.Name)}
            found |= loaded & DATA - {argument.arg for argument in function.args.args}
    return found


def test_no_program_of_a_page_closes_over_its_data():
    """A jitted function takes the data as an argument: constants cost memory and compile time."""
    programs = [
        block
        for page in PAGES
        if page == "README.md" or page.startswith("docs/")
        for block in re.findall(
            r"^```python\n(.*?)^```", (ROOT / page).read_text(), re.DOTALL | re.MULTILINE
        )
    ]
    assert sum("@jax.jit" in code or "jax.jit," in code for code in programs) >= 2
    assert not set().union(*map(data_in_closures, programs))
    closing = "@jax.jit\ndef update(params, state):\n    return estimate(params, state, stream)"
    assert data_in_closures(closing) == {"stream"}
    assert data_in_closures("f = jax.jit(lambda params: loss(params, xs))") == {"xs"}


PAGES = ["README.md", "CONTRIBUTING.md", "experiments/README.md", "benchmarks/README.md"]
PAGES += [f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("page", PAGES)
def test_the_links_of_a_page_lead_somewhere(page):
    text = (ROOT / page).read_text()
    assert "PLACEHOLDER" not in text
    links = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text)
    assert links or page.startswith("docs/")
    for link in links:
        if not link.startswith("http"):
            assert ((ROOT / page).parent / link).exists(), f"{page} links to {link}"


@pytest.mark.parametrize("page", PAGES)
def test_the_files_that_a_page_names_exist(page):
    """Names between backticks that begin with a folder of this repository."""
    named = re.findall(
        r"`((?:artbp|benchmarks|configs|docs|experiments|tests)/[\w./]*)`",
        (ROOT / page).read_text(),
    )
    named = [name for name in named if "NAME" not in name]  # stands for a name of the reader's
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_an_experiment_that_lists_its_modules_lists_all_of_them():
    for path in sorted(ROOT.glob("experiments/*/__init__.py")):
        text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        heads = re.findall(r"^(\w+(?:, \w+)*) {2,}", text, re.MULTILINE)  # "data, generated  the…"
        listed = {name for head in heads for name in head.split(", ")}
        modules = {module.stem for module in path.parent.glob("[!_]*.py")}
        assert modules <= listed or not modules & listed, (path, modules - listed)


@pytest.mark.skipif(
    not ((ROOT / ".git").exists() and shutil.which("git")), reason="needs a git clone"
)
def test_the_repository_holds_no_private_path_and_no_penn_treebank():
    """Penn Treebank is licensed by the LDC, and a path of one machine is of no use on another."""
    command = ["git", "-c", f"safe.directory={ROOT}", "ls-files", "-z"]
    command += ["--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    paths = [ROOT / name for name in listed.split("\0") if name]
    assert PACKAGE / "__init__.py" in paths

    private = re.compile(r"(?<![\w.}~-])/(?:home|root|Users|work|mnt|tmp/\w+)/\w")
    for path in paths:
        assert not re.fullmatch(r"ptb\.(char\.)?(train|valid|test)\.txt", path.name), path
        if not path.is_file():  # deleted, and not committed yet
            continue
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue  # a figure
        found = private.search(text)
        assert not found, f"{path} holds the path {text[found.start() : found.end() + 20]!r}"
        # The mark of the corpus: rare words are spelled <unk>. A made-up sample needs a few.
        assert text.count("<unk>") <= 100, f"{path} looks like Penn Treebank"


def test_every_planted_fault_applies():
    """`tests/faults.py` replaces texts of the code, so each of them has to occur exactly once."""
    assert check_faults() == []
