"""Checks the pages of a built site, without a network: python docs/check_site.py build/docs

It prints, and then exits with status 1:

- links to a page, a file or an anchor that does not exist;
- scripts, styles, fonts and images that a page would load from a network;
- names such as `artbp.unroll` in a page or a docstring that the package does not have, or that are
  public and no link to the reference;
- docstrings that Sphinx takes for something else.
"""

import importlib
import re
import sys
import urllib.parse
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

NAME = re.compile(r"artbp(?:\.\w+)+")
REMOTE = re.compile(r"(?:https?:)?//")
MISREAD = {
    ">Return type<": "the first line of Returns has a colon: what precedes it is taken for a type",
    'class="upperalpha': "a text begins with a letter and a full stop, and is taken for a list",
}


class Page(HTMLParser):
    """The anchors, links and loaded files of a page, and the code that is no link."""

    def __init__(self, path: Path):
        super().__init__()
        self.anchors, self.links, self.loads, self.code = {"", "top"}, [], [], []
        self.open = {"a": 0, "code": 0}
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.anchors |= {values["id"]} if "id" in values else set()
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        elif tag == "link" and values.get("rel") in ("stylesheet", "icon", "preload"):
            self.loads.append(values["href"])
        self.loads += [values["src"]] if "src" in values else []
        if tag in self.open:
            self.open[tag] += 1
        if tag == "code":
            self.code.append("")

    def handle_endtag(self, tag: str) -> None:
        if tag in self.open:
            self.open[tag] -= 1

    def handle_data(self, data: str) -> None:
        if self.open["code"] and not self.open["a"]:
            self.code[-1] += data


def problem_of_name(name: str) -> str | None:
    """What is wrong with a name of the package that is no link, or None."""
    parent, _, attribute = name.rpartition(".")
    try:
        importlib.import_module(name)
    except ImportError:
        owner = problem_of_name(parent) if "." in parent else None
        if owner == "does not exist":
            return owner
        try:
            module = importlib.import_module(parent)
        except ImportError:
            return None  # an attribute of a class
        if not hasattr(module, attribute):
            return "does not exist"
    public = getattr(importlib.import_module(parent), "__all__", ())
    return "is public, and is no link" if attribute in public else None


def problems(site: Path) -> Iterator[str]:
    """One line for everything that is wrong."""
    pages = {path.resolve(): Page(path) for path in sorted(site.rglob("*.html"))}
    for path, page in pages.items():
        where = path.relative_to(site.resolve())
        for link in [*page.links, *page.loads]:
            parts = urllib.parse.urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = path.parent / urllib.parse.unquote(parts.path) if parts.path else path
            target = target.resolve()
            if not target.is_file():
                yield f"{where}: {link} leads to no file"
            elif target in pages:
                anchor = urllib.parse.unquote(parts.fragment)
                if anchor not in pages[target].anchors:
                    yield f"{where}: {link} leads to no anchor"
        yield from (f"{where}: loads {load}" for load in page.loads if REMOTE.match(load))
        text = path.read_text(encoding="utf-8")
        yield from (f"{where}: {reason}" for sign, reason in MISREAD.items() if sign in text)
        names = {text for text in page.code if NAME.fullmatch(text)}
        for name in sorted(names) if where.parts[0] != "_modules" else ():
            if problem := problem_of_name(name):
                yield f"{where}: {name} {problem}"
    for path in sorted(site.rglob("*.css")):
        for load in re.findall(
            r"(?:url\(|@import)\s*[\"']?((?:https?:)?//[^)\"']*)", path.read_text()
        ):
            yield f"{path.relative_to(site)}: loads {load}"


if __name__ == "__main__":
    found = list(problems(Path(sys.argv[1])))
    print("\n".join(found) or "no problem found")
    sys.exit(bool(found))
