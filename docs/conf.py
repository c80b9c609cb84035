import importlib.metadata
import re
import tomllib
from pathlib import Path

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.pycode import ModuleAnalyzer
from sphinx.transforms import SphinxTransform

_project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())["project"]

project = "artbp"
author = "The artbp authors"
copyright = "The artbp authors, Apache-2.0"
version = release = _project["version"]

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
]
myst_enable_extensions = ["amsmath", "dollarmath"]
myst_heading_anchors = 3
exclude_patterns = ["_build"]

autodoc_member_order = "bysource"
# The docstrings give shapes and dtypes, which say more than annotations.
autodoc_typehints = "none"
napoleon_attr_annotations = False
napoleon_use_param = False  # True repeats the text of `a, b: ...` for each of the arguments
python_maximum_signature_line_length = 80
# Backticks in docstrings: a link where the reference has the name, and code elsewhere. With
# `nitpicky`, every argument and every expression between backticks would be a warning;
# `check_site.py` therefore looks for broken names of this package in the built pages instead.
default_role = "py:obj"

html_theme = "furo"
html_title = f"artbp {version}"
html_css_files = ["custom.css"]
html_show_search_summary = False  # it fetches pages, which fails from the file system
# Formulas without a network, also from the file system: one file of MathJax that draws paths. (The
# other one, which loads fonts, cannot do so from the file system.)
_mathjax = importlib.metadata.files("sphinx-mathjax-offline") or []
html_static_path = ["_static", *(str(f.locate()) for f in _mathjax if f.name == "tex-svg.js")]
mathjax_path = "tex-svg.js"


class LinkNames(SphinxTransform):
    """Makes names of this package between backticks in the Markdown pages links to the reference.

    `artbp.unroll`, `artbp.Stream(xs, targets)` and, since the reader has it from `artbp`, `tbptt`.
    """

    default_priority = 400  # before references are resolved
    name = re.compile(r"([a-z_]\w*(?:\.\w+)*)(?:\(.*\))?", re.IGNORECASE | re.DOTALL)

    def apply(self) -> None:
        for code in list(self.document.findall(nodes.literal)):
            is_linked = isinstance(code.parent, (pending_xref, nodes.reference))
            if is_linked or not (match := self.name.fullmatch(code.astext())):
                continue
            target = "artbp.artbp" if match[1] == "artbp" else match[1]
            names = {"refdomain": "py", "reftype": "obj", "reftarget": target, "py:module": "artbp"}
            link = pending_xref("", code.deepcopy(), refdoc=self.env.docname, **names)
            code.replace_self(link)


# Public constants, by the module that defines them. autodoc looks for the docstring of a constant
# only there, and would show that of its class.
CONSTANTS = {
    "artbp.REGISTRY": "artbp.estimators.registry",
    "artbp.cells.elementwise_lstm": "artbp.cells.elementwise_lstm",
    "artbp.cells.gru": "artbp.cells.gru",
    "artbp.cells.linear": "artbp.cells.vanilla",
    "artbp.cells.lru": "artbp.cells.lru",
    "artbp.cells.lstm": "artbp.cells.lstm",
    "artbp.cells.rnn": "artbp.cells.vanilla",
    "artbp.unrolls.Policy": "artbp.unrolls.policies",
}


def keep_lines_of_formulas(app, what, name, obj, options, lines):
    """Makes indented lines after a paragraph of a docstring a literal block, not a quotation."""
    text, before = list(lines), ""  # the last line that is not indented
    lines.clear()
    for i, line in enumerate(text):
        is_start = line.startswith("    ") and i and not text[i - 1]
        is_elsewhere = re.fullmatch(r"\w+:|.*::|[-*] .*", before)  # a section, a block, a list
        if is_start and not is_elsewhere and not text[i - 2].startswith("    "):
            lines += ["::", ""]
        lines.append(line)
        before = line if line and not line.startswith(" ") else before


def use_docstring_of_constant(app, what, name, obj, options, lines):
    if name in CONSTANTS:
        docstrings = ModuleAnalyzer.for_module(CONSTANTS[name]).find_attr_docs()
        lines[:] = docstrings["", name.rpartition(".")[2]]


def setup(app):
    app.add_transform(LinkNames)
    # Before napoleon, whose priority is 500, turns sections into fields.
    app.connect("autodoc-process-docstring", keep_lines_of_formulas, priority=400)
    app.connect("autodoc-process-docstring", use_docstring_of_constant)
