"""Sections, figures and tables as one self-contained HTML page.

Figures are SVG documents inside the page, drawn for a white ground. In a dark theme their lightness
is inverted, by a CSS filter that leaves the hues. Nothing is loaded from elsewhere.
"""

import html
import re
import urllib.parse
import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from markdown_it import MarkdownIt

from experiments.report.charts import Chart

MAX_BYTES = 1 << 20
_RESERVED = 32 << 10  # bytes of the page that are no figures, at least

_STYLE = """
:root { color-scheme: light dark; --ground: #ffffff; --ink: #1c1c1c; --soft: #5c5c5c;
  --line: #d9d9d9; --panel: #f5f5f5; --link: #00619c; }
@media (prefers-color-scheme: dark) {
  :root { --ground: #121212; --ink: #e6e6e6; --soft: #a3a3a3; --line: #3a3a3a; --panel: #1d1d1d;
    --link: #6db9ee; }
  img { filter: invert(0.93) hue-rotate(180deg); }
}
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.5rem 1rem 3rem; max-width: 72rem; background: var(--ground);
  color: var(--ink); font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: break-word; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0 0 0.25rem; }
h2 { font-size: 1.2rem; margin: 2.25rem 0 0.75rem; border-bottom: 1px solid var(--line); }
h3, h4, h5 { font-size: 1rem; margin: 1.5rem 0 0.5rem; }
a { color: var(--link); }
p, ul { max-width: 46rem; }
.soft, figcaption, footer { color: var(--soft); font-size: 0.9rem; }
.facts { display: grid; gap: 0.75rem; margin: 1.25rem 0;
  grid-template-columns: repeat(auto-fit, minmax(9rem, 1fr)); }
.facts div { background: var(--panel); border-radius: 0.4rem; padding: 0.5rem 0.75rem; }
.facts dt { color: var(--soft); font-size: 0.85rem; }
.facts dd { margin: 0; font-size: 1.1rem; font-weight: 600; }
.charts { display: grid; gap: 1.5rem;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 26rem), 1fr)); }
figure { margin: 0 0 1rem; min-width: 0; }
figcaption b { color: var(--ink); font-size: 1rem; display: block; }
img { max-width: 100%; height: auto; display: block; }
.charts img { width: 100%; }
.scroll { overflow-x: auto; margin: 0.5rem 0 1rem; }
.wide img { width: 100%; min-width: 44rem; }
@media (min-width: 48rem) { .wide figcaption { display: none; } }
table { border-collapse: collapse; font-size: 0.9rem; font-variant-numeric: tabular-nums; }
th, td { text-align: left; vertical-align: top; padding: 0.3rem 0.75rem 0.3rem 0;
  border-bottom: 1px solid var(--line); min-width: 4rem; }
pre { background: var(--panel); padding: 0.75rem; border-radius: 0.4rem; white-space: pre-wrap; }
code { font-size: 0.9em; }
summary { cursor: pointer; }
"""

_MARKDOWN = MarkdownIt("commonmark", {"html": False}).enable("table").disable("image")


class Link(NamedTuple):
    """A link to a file beside the page."""

    words: str
    address: str


class Page:
    """Collects the parts of a page; `html()` returns the whole."""

    def __init__(self, title: str, subtitle: str) -> None:
        self._title = title
        self._parts = [
            f"<h1>{html.escape(title)}</h1>",
            f'<p class="soft">{_MARKDOWN.renderInline(subtitle)}</p>',
        ]
        self._bytes_left = MAX_BYTES - _RESERVED

    def heading(self, text: str) -> None:
        """Begins a section."""
        self._add(f"<h2>{html.escape(text)}</h2>")

    def note(self, text: str) -> None:
        """A paragraph of plain text."""
        self._add(f"<p>{html.escape(text)}</p>")

    def facts(self, facts: Mapping[str, str]) -> None:
        """A few numbers by name, in large letters."""
        cells = "".join(
            f"<div><dt>{html.escape(name)}</dt><dd>{html.escape(value)}</dd></div>"
            for name, value in facts.items()
        )
        self._add(f'<dl class="facts">{cells}</dl>')

    def charts(self, charts: Sequence[Chart]) -> None:
        """Small charts side by side; names those for which the page has no room."""
        shown, left_out, room = "", [], self._bytes_left
        for chart in charts:
            words = f"<b>{html.escape(chart.title)}</b>{html.escape(chart.note)}"
            image = _image(chart.svg(), chart.alt())
            figure = f"<figure>{image}<figcaption>{words}</figcaption></figure>"
            if len(shown.encode()) + len(figure.encode()) < room:
                shown += figure
            else:
                left_out.append(chart.title)
        self._add(f'<div class="charts">{shown}</div>')
        if left_out:
            self.note(f"Left out, because the page would be too large: {', '.join(left_out)}.")

    def figure(self, svg: str, name: str) -> None:
        """A whole figure, or its file's name where the page would become too large."""
        title, words = headline(svg)
        title = title or name
        image = _image(svg, f"{title}. {words}".strip())
        if len(image.encode()) > self._bytes_left:
            self.note(f"{name} is too large for this page. It lies in the same folder.")
            return
        caption = f"<figcaption><b>{html.escape(title)}</b>{html.escape(words)}</figcaption>"
        self._add(f'<figure class="wide"><div class="scroll">{image}</div>{caption}</figure>')

    def table(self, headings: Sequence[str], rows: Sequence[Sequence[str | Link]]) -> None:
        """A table of texts and links."""
        head = "".join(f"<th>{html.escape(heading)}</th>" for heading in headings)
        body = "".join(
            "<tr>" + "".join(f"<td>{_cell(cell)}</td>" for cell in row) + "</tr>" for row in rows
        )
        self._add(
            f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody>'
            "</table></div>"
        )

    def markdown(self, text: str) -> None:
        """Markdown, such as a table.md; its headings become those of a subsection."""
        lower = re.sub(r"^#{1,3} ", "### ", text, flags=re.MULTILINE)
        lower = lower.replace(" ± ", "\u00a0±\u00a0")  # no line break beside the sign
        found = str(_MARKDOWN.render(lower))
        found = found.replace("<table>", '<div class="scroll"><table>')
        self._add(found.replace("</table>", "</table></div>"))

    def preformatted(self, title: str, text: str) -> None:
        """A text with its line ends, under a small heading."""
        self._add(f"<h3>{html.escape(title)}</h3><pre>{html.escape(text)}</pre>")

    def html(self) -> str:
        """The page."""
        return (
            '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            f"<title>{html.escape(self._title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
            + "\n".join(self._parts)
            + "\n</body>\n</html>\n"
        )

    def _add(self, part: str) -> None:
        self._parts.append(part)
        self._bytes_left -= len(part.encode())


def _cell(cell: str | Link) -> str:
    if isinstance(cell, Link):
        return f'<a href="{urllib.parse.quote(cell.address)}">{html.escape(cell.words)}</a>'
    return html.escape(cell)


def headline(svg: str) -> tuple[str, str]:
    """The headline of a figure of `experiments.common.figures.new_figure`, and its subtitle.

    They are the first two texts that belong to the figure and to no axes. matplotlib writes the
    words of a text as a comment before its outlines.
    """
    parser = ET.XMLParser(target=ET.TreeBuilder(insert_comments=True))
    figure = ET.fromstring(svg, parser).find(".//*[@id='figure_1']")
    texts = [] if figure is None else [g for g in figure if g.get("id", "").startswith("text_")]
    words = ["", ""]
    for i, text in enumerate(texts[:2]):
        comments = [part.text or "" for part in text.iter() if part.tag is ET.Comment]
        words[i] = html.unescape(" ".join(" ".join(comments).split()))
    return words[0], words[1]


def _image(svg: str, alt: str) -> str:
    """An SVG document as an image within the page."""
    unused = r"<metadata>.*?</metadata>|<!--.*?-->|<\?xml.*?\?>|<!DOCTYPE.*?>"
    short = re.sub(r"\s+", " ", re.sub(unused, "", svg, flags=re.DOTALL))
    address = urllib.parse.quote(short, safe=" /:;,=()'?!*@+-._~{}|[]^`$")
    return f'<img src="data:image/svg+xml,{address}" alt="{html.escape(alt)}">'
