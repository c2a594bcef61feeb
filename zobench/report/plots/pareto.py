"""`--kind pareto`: the quality of each row against its cost, and the Pareto front.

Rows are shown at the setting that dev selects, as in the table; the y axis may be a test metric,
as it only reports.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from zobench.errors import UserError
from zobench.report.cells import Cell
from zobench.report.numbers import is_share, number
from zobench.report.plots.cells import cells, missing, notes, place, selected
from zobench.report.plots.draw import (
    COLOURS,
    COLUMN,
    GREY,
    Painted,
    axis_name,
    draw,
    log_axes,
    plain,
)
from zobench.report.plots.labels import label_points
from zobench.report.plots.options import SPREAD, FigureOptions
from zobench.report.runs import Suite

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import SubFigure

CROWD = 14  # rows from which a panel needs the width of two columns
LESS_IS_BETTER = ("loss", "gap", "error")


@dataclass(frozen=True)
class Spot:
    """One row: means over its finished runs and their sample deviations (0 for one run)."""

    cell: Cell
    x: float
    y: float
    x_std: float
    y_std: float
    front: bool = False


def front(points: Sequence[tuple[float, float]], higher: bool) -> list[bool]:
    """Which points (cost, quality) no other beats: none costs less or the same and is better.

    higher: whether more of the quality is better. Of equal points all are in front or none.
    """
    sign = 1 if higher else -1
    return [
        not any(a <= x and sign * b >= sign * y and (a, b) != (x, y) for a, b in points)
        for x, y in points
    ]


def spots(suite: Suite, options: FigureOptions) -> tuple[list[Spot], list[Cell]]:
    """The rows of all panels that have both numbers, and those that have not."""
    for metric in (options.x, options.y):
        suite.check_metric(metric)
    found: dict[str, list[Spot]] = {}
    without = []
    for cell in cells(suite, options.lines, options.y):
        cost = cell.done.loc[cell.values.index, options.x]
        pair = (float(cost.mean(skipna=False)), float(cell.values.mean()))
        if not all(map(math.isfinite, pair)) or (options.log in ("x", "both") and pair[0] <= 0):
            without.append(cell)
            continue
        dx, dy = (float(np.nan_to_num(values.std())) for values in (cost, cell.values))
        found.setdefault(cell.column, []).append(Spot(cell, *pair, dx, dy))
    higher = higher_is_better(options.y)
    return [
        replace(spot, front=first)
        for panel in found.values()
        for spot, first in zip(panel, front([(s.x, s.y) for s in panel], higher), strict=True)
    ], without


def higher_is_better(metric: str) -> bool:
    """A loss is better when lower, an accuracy or an F1 when higher."""
    return metric.rsplit("/", 1)[-1] not in LESS_IS_BETTER


def pareto(suite: Suite, options: FigureOptions, out: Path) -> list[str]:
    """Draw the rows and the front; returns what is shown and the rows in front."""
    found, without = spots(suite, options)
    remarks = notes([*(spot.cell for spot in found), *without])
    if not found:
        raise UserError(f"nothing to plot in suite '{suite.name}': {'; '.join(remarks)}")
    panels = list(dict.fromkeys(spot.cell.column for spot in found))
    most = max(sum(spot.cell.column == panel for spot in found) for panel in panels)

    def paint(part: "SubFigure", panel: str, width: float) -> Painted:
        axes = part.add_subplot()
        settle = _paint(axes, [s for s in found if s.cell.column == panel], options)
        return Painted(width * 0.7, settle)

    lost = [f"{place(cell)} ({missing([cell]) or 'no number'})" for cell in without]
    chosen = selected(spot.cell for spot in found)
    gone = f"; not shown: {', '.join(lost)}" if lost else ""
    width = 2 * COLUMN if most >= CROWD and len(panels) == 1 else COLUMN
    draw(panels, paint, f"{SPREAD}; filled: the Pareto front{chosen}{gone}", out, width)
    best = [
        f"{place(s.cell)} ({number(options.x, s.x)}, {number(options.y, s.y)})"
        for s in sorted(found, key=lambda s: (s.cell.column, s.x, s.y))
        if s.front
    ]
    facts = f"{options.y} against {options.x}, rows by {options.lines} ({len(found)}): {SPREAD}"
    return [f"{facts}{chosen}{gone}", f"Pareto front: {', '.join(best)}", *remarks]


def _paint(axes: "Axes", mine: list[Spot], options: FigureOptions) -> Callable[[], None]:
    """Whiskers, then the front as a step line, then points; returns what places the names."""
    scale = 100 if is_share(options.y) else 1
    log_axes(axes, options.log)
    boxes = []
    for spot in mine:
        x, y, dx, dy = spot.x, scale * spot.y, spot.x_std, scale * spot.y_std
        left = max(x - dx, 1e-3 * x) if options.log in ("x", "both") else x - dx
        low, high = (max(y - dy, 0), min(y + dy, 100)) if scale == 100 else (y - dy, y + dy)
        boxes += [(left, y, x + dx, y), (x, low, x, high)]
        colour = COLOURS[0] if spot.front else GREY
        whiskers: dict[str, Any] = {"color": colour, "alpha": 0.35, "linewidth": 0.7}
        axes.plot([left, x + dx], [y, y], **whiskers)
        axes.plot([x, x], [low, high], **whiskers)
        fill = colour if spot.front else "white"
        axes.plot(x, y, "o", color=colour, markerfacecolor=fill, markeredgewidth=0.8, zorder=3)
    axes.margins(0.12)
    axes.autoscale_view()
    right = axes.get_xlim()[1]
    first = sorted((spot for spot in mine if spot.front), key=lambda s: s.x)
    xs, ys = [*(s.x for s in first), right], [scale * s.y for s in first]
    ys.append(ys[-1])
    step: dict[str, Any] = {"color": COLOURS[0], "linewidth": 0.9, "linestyle": (0, (3, 1.5))}
    axes.step(xs, ys, where="post", zorder=1, **step)
    for n in range(len(first)):
        rise = sorted(ys[n : n + 2])
        boxes += [(xs[n], ys[n], xs[n + 1], ys[n]), (xs[n + 1], rise[0], xs[n + 1], rise[1])]
    axes.set_xlim(right=right)
    axes.set_xlabel(axis_name(options.x))
    axes.set_ylabel(axis_name(options.y))
    # Those in front get the best places for their names.
    named = sorted(mine, key=lambda s: (not s.front, s.x, s.y))
    names = [
        (plain(s.cell.row), s.x, scale * s.y, COLOURS[0] if s.front else "black") for s in named
    ]
    return label_points(axes, names, boxes)
