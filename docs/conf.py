import tomllib
from pathlib import Path

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

html_theme = "furo"
html_title = f"artbp {version}"
