"""`--kind target`: what each row needed until dev/accuracy reached a target, as bars.

A bar is the median over seeds, each of which is a point. A finished run that never got there, and a
diverged one, count as later than all others, so that a row cannot look better by failing.
"""

import math
import statistics
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from zobench.errors import UserError
from zobench.report.cells import Cell
from zobench.report.curves import curve, forwards_to, read_metrics
from zobench.report.numbers import number
from zobench.report.plots.cells import cells, missing, notes, place, selected
from zobench.report.plots.draw import COLOURS, GREY, Painted, axis_name, draw, plain
from zobench.report.plots.options import FigureOptions
from zobench.report.runs import Suite

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import SubFigure

Y = "dev/accuracy"


@dataclass(frozen=True)
class Bar:
    """One row: `costs` of the runs that finished or diverged, infinite if it never got there.

    A finished run without a curve is in none of them.
    """

    cell: Cell
    costs: list[float]
    most: float  # of a finished run of the row, in all

    @property
    def median(self) -> float:
        """Infinite where half of the runs or more never got there, NaN without any run."""
        return statistics.median(self.costs) if self.costs else math.nan

    @property
    def end(self) -> float:
        """Where the bar and its points end."""
        return max([0.0, *(s for s in (self.median, *self.costs) if math.isfinite(s))])

    def text(self, x: str) -> str:
        """The text next to the bar: the median, or the reason why there is none."""
        reached = sum(costs < math.inf for costs in self.costs)
        facts = [missing([self.cell])]
        if 0 < reached < len(self.costs):
            facts.insert(0, f"{reached} of {len(self.costs)}")
        if not self.costs:
            text = "no curve"
        elif reached == 0:
            text = f"never in {number(x, self.most)}" if self.most > 0 else "never"
        else:
            text = number(x, self.median) if self.median < math.inf else "no median"
        brackets = "; ".join(filter(None, facts))
        return f"{text} ({brackets})" if brackets else text


def bars(suite: Suite, options: FigureOptions) -> list[Bar]:
    """A bar per row and panel, the least median first. x: a metric of metrics.jsonl that rises."""
    found = [_bar(suite, cell, options) for cell in cells(suite, options.lines, Y)]
    if all(math.isnan(bar.most) for bar in found):
        raise UserError(
            f"no run of suite '{suite.name}' has {Y} against {options.x} in its metrics.jsonl; "
            "choose --x cost/forwards, step, cost/tokens or time/train_s"
        )
    return sorted(found, key=lambda bar: (bar.cell.column, _rank(bar)))


def _rank(bar: Bar) -> tuple[float, ...]:
    """Bars by median, then rows that some seeds reached, then the rest; a row without runs last."""
    if not bar.costs:
        return (2.0,)
    return 1.0 if bar.median == math.inf else 0.0, bar.median, *sorted(bar.costs)


def _bar(suite: Suite, cell: Cell, options: FigureOptions) -> Bar:
    costs, most = [], math.nan
    for folder in cell.done["folder"]:
        found = curve(read_metrics(suite.path / folder), options.x, Y)
        if found.empty:
            continue
        reached = forwards_to(found, options.target)
        costs.append(math.inf if math.isnan(reached) else reached)
        most = float(np.fmax(most, found["x"].max()))
    diverged = int((cell.runs["status"] == "diverged").sum()) if cell.setting else 0
    return Bar(cell, costs + [math.inf] * diverged, most)


def target(suite: Suite, options: FigureOptions, out: Path) -> list[str]:
    """Draw the bars; returns what is shown and every row as text."""
    if options.y != Y:
        raise UserError(f"--kind target reads {Y}; leave --y {options.y} out")
    if options.log != "none":
        raise UserError("--kind target has bars, which start at 0; leave --log out")
    found = bars(suite, options)
    furthest = max(bar.end for bar in found) or max(np.nan_to_num([b.most for b in found]).max(), 1)

    def paint(part: "SubFigure", panel: str, width: float) -> Painted:
        mine = [bar for bar in found if bar.cell.column == panel]
        names = [_name(bar) for bar in mine]
        # The axis makes room for the texts right of the bars: how much of it they take, in inches.
        inside = width - 0.3 - 0.06 * max(len(line) for name in names for line in name.split("\n"))
        limits = [furthest]
        for bar in mine:
            text = min(0.055 * len(bar.text(options.x)) + 0.12, 0.75 * inside)
            limits.append(bar.end * inside / (inside - text))
        _paint(part.add_subplot(), mine, options, max(limits))
        tall = max(name.count("\n") for name in names)
        return Painted(0.5 + (0.17 + 0.12 * tall) * len(mine))

    panels = list(dict.fromkeys(bar.cell.column for bar in found))
    goal = f"{options.x} until {Y} was {100 * options.target:g} % or more"
    chosen = selected(bar.cell for bar in found)
    draw(
        panels,
        paint,
        f"{goal}: median over seeds (how many got there), a point per seed{chosen}",
        out,
    )
    rows = [f"{place(bar.cell)}: {bar.text(options.x)}" for bar in found]
    remarks = notes(bar.cell for bar in found)
    return [f"{goal}, rows by {options.lines}: median over seeds{chosen}", *rows, *remarks]


def _name(bar: Bar) -> str:
    """The row's name, in a few short lines."""
    return textwrap.fill(plain(bar.cell.row), 22, max_lines=3, placeholder=" ...")


def _paint(axes: "Axes", mine: list[Bar], options: FigureOptions, limit: float) -> None:
    """Bars from the top down, each with its seeds and its text."""
    for y, bar in enumerate(mine):
        reached = sorted(costs for costs in bar.costs if costs < math.inf)
        if math.isfinite(bar.median):
            axes.barh(y, bar.median, 0.62, color=COLOURS[0], alpha=0.45, linewidth=0)
        dots: dict[str, Any] = {"color": COLOURS[0], "markerfacecolor": "white"}
        if reached:  # what is empty and not clipped would be laid out at the corner of the figure
            axes.plot(reached, [y] * len(reached), "o", markeredgewidth=0.8, clip_on=False, **dots)
        quiet: dict[str, Any] = {} if bar.median < math.inf else {"color": GREY, "style": "italic"}
        axes.annotate(
            plain(bar.text(options.x)),
            (bar.end, y),
            xytext=(5, 0),
            textcoords="offset points",
            va="center",
            fontsize=6.5,
            annotation_clip=False,
            in_layout=False,  # the axis makes room for it
            **quiet,
        )
    axes.set_yticks(range(len(mine)), [_name(bar) for bar in mine])
    axes.set_ylim(len(mine) - 0.4, -0.6)
    axes.set_xlim(0, limit)
    axes.tick_params("y", length=0)
    axes.grid(False, axis="y")
    axes.set_xlabel(f"{axis_name(options.x)} to {100 * options.target:g} %")
