"""Draw a chart to a file: PNG or SVG, the same bytes for the same chart."""

import math
import textwrap
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from zobench.report.formats import is_share
from zobench.report.lines import Chart, Line

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import SubFigure

# Okabe and Ito's colours without their yellow, which is faint on white: told apart by all readers.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = "osD^vPX*"
DASHES = ("-", "--", "-.", (0, (1, 1)))
UNITS = {
    "_s": "s",
    "_gib": "GiB",
    "accuracy": "%",
    "cost/forwards": "model evaluations of one batch",
}
# Over matplotlib's defaults, so that nobody's own matplotlibrc changes a figure.
STYLE = {
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": "medium",
    "errorbar.capsize": 3,
    "figure.titlesize": "medium",
    "figure.titleweight": "bold",
    "font.family": "DejaVu Sans",  # comes with matplotlib
    "grid.alpha": 0.3,
    "legend.fontsize": "small",
    "legend.frameon": False,
    "lines.markersize": 5,
    "svg.hashsalt": "zobench",
}
PANELS_ABREAST = 3


def draw(chart: Chart, log: str, caption: str, out: Path) -> None:
    """Write the figure to `out`, whose suffix is .png or .svg; log: none, x, y or both."""
    import matplotlib.style
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    panels = list(dict.fromkeys(line.panel for line in chart.lines))
    # A label looks the same in every panel.
    labels = {label: n for n, label in enumerate(dict.fromkeys(ln.label for ln in chart.lines))}
    abreast = min(PANELS_ABREAST, len(panels))
    down = -(-len(panels) // abreast)
    with matplotlib.style.context(["default", STYLE]):
        figure = Figure(layout="constrained")
        FigureCanvasAgg(figure)
        figure.suptitle(_plain(chart.suite))
        width = 6.4 if abreast == 1 else 4.6
        rows = 0
        parts = figure.subfigures(down, abreast, squeeze=False).flat
        for panel, part in zip(panels, parts, strict=False):  # the last row may have room left
            part.suptitle(_plain(panel), fontweight="normal")
            rows = max(rows, _panel(part, chart, panel, labels, log, int(13 * width)))
        figure.set_size_inches(width * abreast, 0.8 + down * (3.6 + 0.2 * rows))
        caption = textwrap.fill(_plain(caption), int(16 * width * abreast))
        figure.supxlabel(caption, fontsize="x-small", color="0.35")
        metadata = {"Software": None} if out.suffix == ".png" else {"Date": None, "Creator": None}
        figure.savefig(out, dpi=150, metadata=metadata)


def _panel(
    part: "SubFigure", chart: Chart, panel: str, labels: dict[str, int], log: str, width: int
) -> int:
    """Draw the lines of one panel and, below, its legend; returns the rows of text below.

    width: the characters of small print that fit abreast.
    """
    axes = part.add_subplot()
    lines = [line for line in chart.lines if line.panel == panel]
    for name, axis in (("x", axes.xaxis), ("y", axes.yaxis)):
        if log in (name, "both"):
            axes.set(**{f"{name}scale": "log"})
            axis.grid(True, "both")
            axis.set_major_formatter(partial(_log_tick, axis))
            axis.set_minor_formatter(partial(_log_tick, axis))
    handles = [_line(axes, chart, line, labels, log) for line in lines]
    rows = 0
    if ticks := [textwrap.fill(_plain(name), 30) for name in chart.categories]:
        axes.set_xlim(-0.5, len(ticks) - 0.5)
        axes.set_xticks(range(len(ticks)), ticks)
        if sum(map(len, ticks)) > width // 2:
            rows = max(len(line) for tick in ticks for line in tick.split("\n")) // 4  # when turned
            axes.tick_params("x", labelrotation=45)
            for tick in axes.get_xticklabels():
                tick.set(ha="right", rotation_mode="anchor")
    axes.set_xlabel(_name(chart.x))
    axes.set_ylabel(_name(chart.y))
    texts = [textwrap.fill(_plain(line.legend()), width - 10) for line in lines]
    columns = max(1, min(len(texts), width // (max(map(len, texts)) + 10)))
    title = textwrap.fill(_plain(chart.by), width)
    where: dict[str, Any] = {"loc": "outside lower center", "ncols": columns}
    part.legend(handles, texts, title=title, title_fontsize="small", **where)
    return rows + 1 + -(-sum(text.count("\n") + 1 for text in texts) // columns)


def _line(axes: "Axes", chart: Chart, line: Line, labels: dict[str, int], log: str) -> Any:
    """Draw one line with its spread over seeds; returns what stands for it in the legend."""
    number, scale = labels[line.label], 100 if is_share(chart.y) else 1
    style: dict[str, Any] = {
        "color": COLOURS[number % len(COLOURS)],
        "linestyle": DASHES[number // len(COLOURS) % len(DASHES)],
    }
    mean, std = (scale * line.points[key].to_numpy(float) for key in ("mean", "std"))
    # A single run has no spread. Nothing reaches below 0 on a logarithmic axis: cut it there, and
    # no share is below 0 or above 100 %.
    low, high = mean - np.nan_to_num(std), mean + np.nan_to_num(std)
    if is_share(chart.y):
        low, high = np.maximum(low, 0), np.minimum(high, 100)
    if log in ("y", "both"):
        low = np.where(low > 0, low, mean / 10)
    if line.level:
        axes.axhspan(low[0], high[0], color=style["color"], alpha=0.12, linewidth=0)
        return axes.axhline(mean[0], **style | {"linestyle": (0, (4, 2, 1, 2))})
    style["marker"] = MARKERS[number % len(MARKERS)]
    if chart.curves:
        x = line.points["x"].to_numpy(float)
        axes.fill_between(x, low, high, color=style["color"], alpha=0.18, linewidth=0)
        # Few enough markers to see the line, and not on top of those of another line.
        every = max(1, len(x) // 10)
        return axes.plot(x, mean, markevery=(number % every, every), **style)[0]
    places = {name: n for n, name in enumerate(chart.categories)}
    x = np.array([places.get(place, place) for place in line.points["x"]], dtype=float)
    if places:  # beside each other, so that no error bar hides another
        x += 0.4 * ((number + 0.5) / len(labels) - 0.5)
    return axes.errorbar(x, mean, yerr=(mean - low, high - mean), **style)


def _log_tick(axis: "Axis", value: float, _position: int | None) -> str:
    """Plain numbers on a logarithmic axis, the fewer the more decades it spans."""
    low, high = axis.get_view_interval()
    decades = math.log10(high / low)
    digit = round(value / 10 ** math.floor(math.log10(value)))
    shown = (
        (1, 10) if decades > 2.5 else (1, 2, 5, 10) if decades > 1 else (1, 2, 3, 4, 5, 6, 8, 10)
    )
    return f"{value:g}" if digit in shown or decades < 0.5 else ""


def _name(key: str) -> str:
    """An axis label: the key as people ask for it, and its unit."""
    unit = next((unit for end, unit in UNITS.items() if key.endswith(end)), "")
    return _plain(f"{key} ({unit})" if unit else key)


def _plain(text: str) -> str:
    """Text as it stands: no formulas, one line, and only characters that the font has.

    A leading underscore would hide a legend entry, a missing glyph would be a warning.
    """
    from matplotlib.font_manager import findfont, get_font

    glyphs = get_font(findfont("DejaVu Sans")).get_charmap()
    words = " ".join(text.split())
    shown = "".join(c if ord(c) in glyphs else c.encode("unicode_escape").decode() for c in words)
    return (" " if shown.startswith("_") else "") + shown.replace("$", r"\$")
