"""Prints pip constraints: the oldest versions of the library's dependencies in pyproject.toml."""

import re
import tomllib
from pathlib import Path

project = tomllib.loads(Path("pyproject.toml").read_text())["project"]
for requirement in [*project["dependencies"], *project["optional-dependencies"]["adapters"]]:
    name, oldest = re.findall(r"^([\w-]+)>=([\w.]+)", requirement)[0]
    print(f"{name}=={oldest}")
