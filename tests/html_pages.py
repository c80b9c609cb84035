"""Reads a report as a browser would: its parts, and what it would load."""

import html.parser
import re
import urllib.parse

VOID = {"meta", "img"}


class Reader(html.parser.HTMLParser):
    """Collects headings, figures, table cells, links and addresses; checks the nesting."""

    def __init__(self, text):
        super().__init__()
        self.open, self.headings, self.figures, self.cells, self.links = [], [], [], [], []
        self.loaded, self.title = [], ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        assert tag not in ("script", "iframe", "object", "link")
        self.loaded += [given[name] for name in ("src", "srcset", "poster") if name in given]
        if tag == "a":
            self.links.append(given["href"])
        if tag == "figure":
            self.figures.append({"title": "", "alt": "", "svg": ""})
        if tag == "img":
            self.figures[-1]["alt"] = given["alt"]
            self.figures[-1]["svg"] = urllib.parse.unquote(given["src"].partition(",")[2])
        if tag in ("h1", "h2", "h3"):
            self.headings.append("")
        if tag == "td":
            self.cells.append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "title":
            self.title += data
        if self.open and self.open[-1] in ("h1", "h2", "h3"):
            self.headings[-1] += data
        if self.open[-2:] == ["figcaption", "b"]:
            self.figures[-1]["title"] += data
        if "td" in self.open:
            self.cells[-1] += data
        if self.open and self.open[-1] == "style":
            assert not re.search(r"url\(|@import", data)
            assert "prefers-color-scheme: dark" in data


def read(path):
    """Checks what holds for every report, and returns its reader."""
    text = path.read_text(encoding="utf-8")
    assert len(text.encode()) < 1 << 20
    reader = Reader(text)
    assert reader.title and "width=device-width" in text
    assert all(address.startswith("data:") for address in reader.loaded)
    for figure in reader.figures:
        assert figure["title"] and len(figure["alt"]) > 10
        assert figure["svg"].strip().startswith("<svg")
        assert not re.search(r"""(href|src)=["'](?!#|data:)""", figure["svg"])
    return reader
