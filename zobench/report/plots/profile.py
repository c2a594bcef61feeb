"""`--kind profile`: performance profiles, the share of workloads against the cost over the lowest.

The scores of `zobench score`, of which each is the area under a line.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from zobench.errors import UserError
from zobench.report.plots.chart import Chart, Line
from zobench.report.plots.draw import SILENT
from zobench.report.plots.lines import draw_chart
from zobench.report.plots.options import FigureOptions
from zobench.report.profiles import MOST, Profile
from zobench.report.runs import Suite
from zobench.report.score_notes import notes, unit
from zobench.report.scoring import Scores, rules_of, scored
from zobench.report.table import DEFAULTS
from zobench.report.workloads import COSTS

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def profile(suite: Suite, options: FigureOptions, out: Path) -> list[str]:
    """Draw the profiles, with the targets of the baseline; returns the scores and their rules."""
    if options.log != "none":
        raise UserError("--kind profile has linear axes; leave --log out")
    costs = {key: cost for cost, key in COSTS.items()}
    if options.x not in costs:
        raise UserError(f"--kind profile --x {options.x}: choose one of {', '.join(costs)}")
    own = options.lines == (suite.preset("table", "rows") or DEFAULTS["rows"])
    rows = None if own else options.lines  # the suite's baseline is one of its own rows
    rules = rules_of(suite, rows=rows, metric=options.y, cost=costs[options.x])
    scores = scored(suite, rules)
    draw_profiles(scores, out)
    areas = [f"{profile.row}: score {profile.score:.3f}" for profile in scores.profiles]
    return [*areas, *notes(scores)]


def draw_profiles(scores: Scores, out: Path) -> None:
    """Write the profiles as a figure, whose suffix is its format."""
    if out.suffix not in SILENT:
        raise UserError(f"cannot write {out}: the suffix must be {' or '.join(SILENT)}")
    chart = Chart(
        scores.suite.name,
        "cost over the lowest, tau",
        "share of workloads",
        scores.rules.rows,
        [_line(one) for one in scores.profiles],
        curves=True,
    )
    caption = (
        f"share of workloads ({len(scores.workloads)}) in which the {unit(scores)} to a target of"
        f" {scores.rules.metric} are at most tau times the fewest of all rows"
    )
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        draw_chart(chart, "none", caption, out, _frame)
    except OSError as error:
        raise UserError(f"cannot write {out}: {error}") from error


def _frame(axes: "Axes", _panel: str) -> None:
    axes.set(xlim=(1, MOST), ylim=(-0.02, 1.02))


def _line(one: Profile) -> Line:
    """The corners of the profile as the points of a line; it has no spread."""
    x, shares = zip(*one.steps(), strict=True)
    points = pd.DataFrame({"x": x, "mean": shares, "std": float("nan"), "n": len(one.ratios)})
    return Line("", one.row, points, [])
