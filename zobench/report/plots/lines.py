"""Draw the lines of a chart into a panel: bands or error bars, and their names at their ends."""

import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from zobench.report.numbers import is_share
from zobench.report.plots.chart import Chart, Line
from zobench.report.plots.draw import (
    COLUMN,
    Painted,
    axis_name,
    characters,
    draw,
    legend,
    log_axes,
    look,
    plain,
)
from zobench.report.plots.labels import End, label_ends

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import SubFigure

DIRECT = 7  # lines that can be named at their ends
CROWD = 14  # lines above which one panel is as wide as two columns
NAME = 16  # characters of such a name before it is broken in two


def draw_chart(
    chart: Chart,
    log: str,
    caption: str,
    out: Path,
    mark: Callable[["Axes", str], None] | None = None,
) -> None:
    """Draw lines and name them: at their ends if they are few and have short names, else below.

    mark: adds to the axes of a panel when its lines are there.
    """
    panels = list(dict.fromkeys(line.panel for line in chart.lines))
    numbers, names = numbering(chart), direct_names(chart)
    # Inches of a panel: a column, or two for one panel with more lines than a column holds.
    inches = COLUMN * (2 if len(numbers) > CROWD and len(panels) == 1 else 1)

    def paint(part: "SubFigure", panel: str, width: float) -> Painted:
        axes = part.add_subplot()
        lines = [line for line in chart.lines if line.panel == panel]
        log_axes(axes, log)
        handles = [_line(axes, chart, line, numbers[line.label], log) for line in lines]
        turned = _categories(axes, chart, width) if chart.categories else 0.0
        axes.set_xlabel(axis_name(chart.x))
        axes.set_ylabel(axis_name(chart.y))
        height, settle = 2.1 * (1.5 if width > COLUMN else 1) + turned, None
        if names is None:
            height += legend(part, handles, [line.legend() for line in lines], width)
        else:
            ends = [
                End(names[line.label], look(numbers[line.label])["color"], *_end(chart, line))
                for line in lines
                if line.points["mean"].notna().any()
            ]
            settle = label_ends(axes, ends)
        if mark:
            mark(axes, panel)
        return Painted(height, settle)

    draw(panels, paint, caption, out, inches)


def numbering(chart: Chart) -> dict[str, int]:
    """A number per label, so that one looks the same in every panel."""
    return {label: n for n, label in enumerate(dict.fromkeys(ln.label for ln in chart.lines))}


def direct_names(chart: Chart) -> dict[str, str] | None:
    """The name of each label at its line's end, None where a legend is better."""
    labels = list(numbering(chart))
    names = {label: textwrap.wrap(plain(label), NAME, break_on_hyphens=False) for label in labels}
    long = any(len(name) > 2 for name in names.values())
    if chart.categories or len(labels) > DIRECT or long:
        return None
    return {label: "\n".join(name) for label, name in names.items()}


def _end(chart: Chart, line: Line) -> tuple[float | None, float]:
    """Where the line ends, which for a level is the right edge of the axes."""
    last = line.points[line.points["mean"].notna()].iloc[-1]
    y = float(last["mean"]) * (100 if is_share(chart.y) else 1)
    return (None if line.level else float(last["x"])), y


def _categories(axes: "Axes", chart: Chart, width: float) -> float:
    """Name the places of an axis that has no numbers; returns the inches this takes."""
    ticks = [textwrap.fill(plain(name), 30) for name in chart.categories]
    axes.set_xlim(-0.5, len(ticks) - 0.5)
    axes.set_xticks(range(len(ticks)), ticks)
    if sum(map(len, ticks)) <= characters(width, 7) // 2:
        return 0.0
    axes.tick_params("x", labelrotation=45)
    for tick in axes.get_xticklabels():
        tick.set(ha="right", rotation_mode="anchor")
    return 0.05 * max(len(line) for tick in ticks for line in tick.split("\n"))


def _line(axes: "Axes", chart: Chart, line: Line, number: int, log: str) -> Any:
    """Draw one line with its spread over seeds; returns its legend handle."""
    scale, style = 100 if is_share(chart.y) else 1, look(number)
    mean, std = (scale * line.points[key].to_numpy(float) for key in ("mean", "std"))
    # A single run has no spread. Nothing reaches below 0 on a logarithmic axis: cut it there, and
    # no share is below 0 or above 100 %.
    low, high = mean - np.nan_to_num(std), mean + np.nan_to_num(std)
    if is_share(chart.y):
        low, high = np.maximum(low, 0), np.minimum(high, 100)
    if log in ("y", "both"):
        low = np.where(low > 0, low, mean / 10)
    band = {"color": style["color"], "alpha": 0.18, "linewidth": 0}
    if line.level and len(mean):
        axes.axhspan(low[0], high[0], **band)
        return axes.axhline(mean[0], color=style["color"], linestyle=(0, (4, 2, 1, 2)))
    if chart.curves:
        x = line.points["x"].to_numpy(float)
        axes.fill_between(x, low, high, **band)
        # Few enough markers to see the line, and not on top of those of another line.
        every = max(1, len(x) // 8)
        return axes.plot(x, mean, markevery=(number % every, every), **style)[0]
    places = {name: n for n, name in enumerate(chart.categories)}
    x = np.array([places.get(place, place) for place in line.points["x"]], dtype=float)
    if places:  # beside each other, so that no error bar hides another, and nothing between them
        x += 0.4 * ((number + 0.5) / len(numbering(chart)) - 0.5)
        style["linestyle"] = "none"
    return axes.errorbar(x, mean, yerr=(mean - low, high - mean), **style)
