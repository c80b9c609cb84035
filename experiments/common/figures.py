"""What the figures of all experiments share.

Colours are Okabe & Ito's, which readers with any colour vision can tell apart; lines carry their
labels besides.
"""

from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

COLOURS = ("#0072B2", "#009E73", "#56B4E9", "#D55E00", "#E69F00", "#CC79A7", "#000000", "#7F7F7F")

STYLE: dict[Any, Any] = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlelocation": "left",
    "svg.hashsalt": "artbp",  # the same picture gives the same file
}


def save(figure: Figure, path: Path) -> None:
    """Writes `path` with the endings .png and .svg."""
    with matplotlib.rc_context(STYLE):
        figure.savefig(path.with_suffix(".png"), dpi=160)
        figure.savefig(path.with_suffix(".svg"), metadata={"Date": None})
