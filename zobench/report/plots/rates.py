"""`--kind rates`: how a dev metric depends on the learning rate, and which one dev selects."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zobench.errors import UserError
from zobench.report.numbers import is_share
from zobench.report.plots.cells import cells, grouping, notes
from zobench.report.plots.chart import Chart, Line, chart
from zobench.report.plots.curves import caption, on_log_axes
from zobench.report.plots.draw import look
from zobench.report.plots.lines import draw_chart, numbering
from zobench.report.plots.options import FigureOptions
from zobench.report.runs import Suite

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True)
class DivergedRuns:
    """How many of the runs of a row diverged at one rate."""

    panel: str
    label: str
    x: float
    runs: int
    of: int


def diverged(suite: Suite, x: str, by: str) -> list[DivergedRuns]:
    """Every row and rate at which a run diverged, in the order of the rates."""
    panels, labels = grouping(suite, by, x)
    found = []
    for (panel, label, place), runs in suite.frame.groupby([panels, labels, suite.labels(x)]):
        count = int((runs["status"] == "diverged").sum())
        if count and _number(str(place)) is not None:
            rate = float(str(place))
            found.append(DivergedRuns(str(panel), str(label), rate, count, len(runs)))
    return sorted(found, key=lambda d: (d.panel, d.x, d.label))


def chosen(suite: Suite, x: str, y: str, by: str) -> dict[tuple[str, str], list[float]]:
    """The x of what dev selects for each panel and row: of one setting, or of one per seed."""
    places = suite.labels(x)
    picked: dict[tuple[str, str], list[float]] = {}
    for cell in cells(suite, by, y):
        values = {_number(place) for place in places[cell.done.index]}
        picked[cell.column, cell.row] = sorted(value for value in values if value is not None)
    return picked


def _number(text: str) -> float | None:
    """The text as a finite number, if it is one."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def rates(suite: Suite, options: FigureOptions, out: Path) -> list[str]:
    """Draw a line per row over the rates; returns what is shown and what dev selects."""
    if not options.y.startswith("dev/"):
        raise UserError(f"--kind rates selects by dev and shows a dev metric, not {options.y}")
    full = chart(suite, options.x, options.y, options.lines)
    if full.curves or full.categories:
        raise UserError(f"--kind rates needs a setting that is a number; {options.x} is not")
    shown, remarks = on_log_axes(full, options.log)
    if all(line.points.empty for line in shown.lines):
        raise UserError(f"nothing to plot in suite '{suite.name}': {'; '.join(remarks)}")
    picked, lost = (
        chosen(suite, options.x, options.y, options.lines),
        diverged(suite, options.x, options.lines),
    )

    def mark(axes: "Axes", panel: str) -> None:
        numbers = numbering(shown)
        for line in (line for line in shown.lines if line.panel == panel):
            for x in picked[panel, line.label]:
                _ring(axes, shown, line, numbers[line.label], x)
        _crosses(axes, numbers, [d for d in lost if d.panel == panel])

    marks = "; ring: selected on dev" + ("; cross: diverged" if lost else "")
    draw_chart(shown, options.log, caption(shown) + marks, out, mark)
    facts = f"{options.y} against {options.x}, lines by {options.lines} ({len(shown.lines)})"
    best = [f"{row}{p and f', {p}'}: {x:g}" for (p, row), xs in picked.items() for x in xs]
    remarks += [
        f"{d.label}{d.panel and f', {d.panel}'}: {d.runs} of {d.of} runs diverged at {d.x:g}"
        for d in lost
    ]
    remarks += [note for line in shown.lines for note in notes(line.cells)]
    return [f"{facts}: {caption(shown)}", f"dev selects {', '.join(best) or 'nothing'}", *remarks]


def _ring(axes: "Axes", shown: Chart, line: Line, number: int, x: float) -> None:
    """A ring around the point that dev selects."""
    here = line.points[line.points["x"] == x]
    if line.level or here.empty:
        return
    y = float(here["mean"].iloc[0]) * (100 if is_share(shown.y) else 1)
    # Of several sizes, as rows may meet where they are best.
    ring: dict[str, Any] = {"markerfacecolor": "none", "markersize": 7.5 + 2 * (number % 4)}
    colour = look(number)["color"]
    axes.plot(here["x"].iloc[0], y, "o", color=colour, zorder=4, **ring)


def _crosses(axes: "Axes", numbers: dict[str, int], lost: list[DivergedRuns]) -> None:
    """A cross per row and rate at the bottom edge, above each other where rates are the same."""
    if not lost:
        return
    piles: dict[float, int] = {}
    for one in lost:
        height = piles.get(one.x, 0)
        piles[one.x] = height + 1
        at, across = (one.x, 0.03 + 0.05 * height), axes.get_xaxis_transform()
        colour = look(numbers[one.label])["color"]
        axes.plot(*at, "x", color=colour, markersize=4.5, markeredgewidth=1.3, transform=across)
        if one.runs < one.of:
            axes.annotate(
                f"{one.runs}/{one.of}",
                at,
                xycoords=across,
                xytext=(4, 0),
                textcoords="offset points",
                va="center",
                fontsize=6,
            )
    # Room for them below the data, in the coordinates that the axis is linear in.
    tall = 0.05 * (max(piles.values()) + 1)
    transform = axes.yaxis.get_transform()
    low, high = transform.transform(axes.get_ylim())
    axes.set_ylim(bottom=float(transform.inverted().transform([low - tall * (high - low)])[0]))
