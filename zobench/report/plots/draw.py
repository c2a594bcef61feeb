"""The common parts of all figures: size, style, names, and files with reproducible bytes.

A figure is as wide as a column of a two-column paper, or as two: printed at its own size, its text
has 6 to 8 points. PDF has its fonts embedded as TrueType (Type 42), as publishers ask.
"""

import math
import textwrap
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from zobench.report.numbers import is_share

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import SubFigure

# Okabe and Ito's colours, distinct for all readers, without yellow, which is faint on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = "osD^vPX*"
DASHES = ("-", "--", "-.", (0, (1, 1)))
GREY = "0.35"
NAMES = {
    "cost/forwards": "forward passes",
    "cost/tokens": "tokens",
    "memory/peak_gib": "peak memory (GiB)",
    "memory/state_gib": "optimizer state (GiB)",
    "optimizer.lr": "learning rate",
    "time/step_s": "time per step (s)",
    "time/train_s": "training time (s)",
}
# Applied to matplotlib's defaults, so that the user's matplotlibrc does not change a figure.
STYLE = {
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.labelsize": 8,
    "axes.linewidth": 0.6,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 8,
    "errorbar.capsize": 1.5,
    "figure.titlesize": 8,
    "font.family": "DejaVu Sans",  # comes with matplotlib
    "font.size": 8,
    "grid.alpha": 0.3,
    "grid.linewidth": 0.5,
    "legend.fontsize": 7,
    "legend.frameon": False,
    "lines.linewidth": 1.2,
    "lines.markersize": 3.5,
    "pdf.fonttype": 42,
    "svg.hashsalt": "zobench",
    "xtick.labelsize": 7,
    "xtick.major.width": 0.6,
    "ytick.labelsize": 7,
    "ytick.major.width": 0.6,
}
COLUMN = 3.4  # inches
ABREAST = 2  # panels
SMALL = 6  # points
# Metadata of each format that would hold the time and the program.
SILENT: dict[str, dict[str, Any]] = {
    ".png": {"Software": None},
    ".svg": {"Date": None, "Creator": None},
    ".pdf": {"CreationDate": None, "Creator": None, "Producer": None},
}


class Painted(NamedTuple):
    """A panel's height in inches, and what places its labels once the layout is known."""

    height: float
    settle: Callable[[], None] | None = None


def draw(
    panels: Sequence[str],
    paint: Callable[["SubFigure", str, float], Painted],
    caption: str,
    out: Path,
    width: float = COLUMN,
) -> None:
    """Write the figure to `out`, whose suffix is one of SILENT; `paint` draws a panel.

    width: of a panel in inches, an argument of `paint`.
    """
    import matplotlib.style
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    abreast = min(ABREAST, len(panels))
    down = -(-len(panels) // abreast)
    with matplotlib.style.context(["default", STYLE]):
        figure = Figure(layout="constrained", dpi=300)
        FigureCanvasAgg(figure)
        parts = figure.subfigures(down, abreast, squeeze=False).flat
        painted = []
        for panel, part in zip(panels, parts, strict=False):  # the last row may have room left
            if panel:
                part.suptitle(plain(panel))
            painted.append(paint(part, panel, width))
        small = textwrap.fill(plain(caption), characters(width * abreast, SMALL))
        figure.supxlabel(small, fontsize=SMALL, color=GREY)
        height = down * (max(p.height for p in painted) + (0.2 if any(panels) else 0))
        figure.set_size_inches(width * abreast, height + 0.1 * (small.count("\n") + 1.5))
        figure.draw_without_rendering()
        figure.set_layout_engine("none")  # stays as it is now
        for panel_ in painted:
            if panel_.settle:
                panel_.settle()
        figure.savefig(out, dpi=300, metadata=SILENT[out.suffix])


def look(number: int) -> dict[str, Any]:
    """Colour, dashes and marker of the line with this number: no two of the first 56 are alike."""
    return {
        "color": COLOURS[number % len(COLOURS)],
        "linestyle": DASHES[number // len(COLOURS) % len(DASHES)],
        "marker": MARKERS[number % len(MARKERS)],
    }


def legend(part: "SubFigure", handles: Sequence[Any], texts: list[str], width: float) -> float:
    """Put a legend below a panel that is `width` inches wide; returns its height in inches."""
    room = characters(width, 7)
    texts = [textwrap.fill(plain(text), room - 8) for text in texts]
    longest = max(len(line) for text in texts for line in text.split("\n"))
    columns = max(1, min(len(texts), room // (longest + 5)))
    where: dict[str, Any] = {"loc": "outside lower center", "ncols": columns}
    part.legend(handles, texts, columnspacing=1, **where)
    down = -(-len(texts) // columns)
    lines = sum(max(t.count("\n") + 1 for t in texts[n::down]) for n in range(down))
    return 0.15 * lines + 0.1


def log_axes(axes: "Axes", log: str) -> None:
    """Make the axis x, y, both or none logarithmic, with plain numbers at its ticks."""
    for name, axis in (("x", axes.xaxis), ("y", axes.yaxis)):
        if log in (name, "both"):
            axes.set(**{f"{name}scale": "log"})
            axis.set_major_formatter(partial(_log_tick, axis))
            axis.set_minor_formatter(partial(_log_tick, axis))


def _log_tick(axis: "Axis", value: float, _position: int | None) -> str:
    """Plain numbers on a logarithmic axis, the fewer the more decades it spans."""
    low, high = axis.get_view_interval()
    decades = math.log10(high / low)
    digit = round(value / 10 ** math.floor(math.log10(value)))
    shown = (
        (1, 10) if decades > 1.7 else (1, 2, 5, 10) if decades > 1 else (1, 2, 3, 4, 5, 6, 8, 10)
    )
    return f"{value:g}" if digit in shown or decades < 0.5 else ""


def characters(width: float, size: float) -> int:
    """How many characters of a font of `size` points fit into `width` inches, on the average."""
    return int(width * 72 / (0.58 * size))


def axis_name(key: str) -> str:
    """An axis label in words for the keys of most figures, else the key; with its unit."""
    split, _, what = key.partition("/")
    if split in ("train", "dev", "test") and what:
        return plain(f"{split} {what}{' (%)' if is_share(key) else ''}")
    return NAMES.get(key) or plain(key)


def plain(text: str) -> str:
    """Text as it stands: no formulas, one line, and only characters that the font has.

    A leading underscore would hide a legend entry, a missing glyph would be a warning.
    """
    from matplotlib.font_manager import findfont, get_font

    glyphs = get_font(findfont("DejaVu Sans")).get_charmap()
    words = " ".join(text.split())
    shown = "".join(c if ord(c) in glyphs else c.encode("unicode_escape").decode() for c in words)
    return (" " if shown.startswith("_") else "") + shown.replace("$", r"\$")
