"""`--kind curves`: a metric over the course of training, or a point per value of a setting."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from zobench.errors import UserError
from zobench.report.numbers import is_share
from zobench.report.plots.cells import missing, notes, selected
from zobench.report.plots.chart import Chart, Line, chart
from zobench.report.plots.lines import direct_names, draw_chart
from zobench.report.plots.options import SPREAD, FigureOptions
from zobench.report.plots.unfinished import as_it_stands
from zobench.report.runs import Suite

AXES = {"none": (), "x": ("x",), "y": ("y",), "both": ("x", "y")}


def curves(suite: Suite, options: FigureOptions, out: Path) -> list[str]:
    """Draw mean and spread over seeds; returns notes on what is shown and what is missing."""
    suite, running = as_it_stands(suite, options.x, options.y, options.lines)
    full = chart(suite, options.x, options.y, options.lines)
    shown, remarks = on_log_axes(full, options.log)
    so_far = f"not finished, shown as far as they are: {'; '.join(running)}" if running else ""
    remarks += [so_far] if so_far else []
    remarks += [note for line in shown.lines for note in _notes(line)]
    if all(line.points.empty for line in shown.lines):
        raise UserError(f"nothing to plot in suite '{suite.name}': {'; '.join(remarks)}")
    draw_chart(shown, options.log, "; ".join(filter(None, (caption(shown), so_far))), out)
    return [_summary(suite, shown), *remarks]


def on_log_axes(full: Chart, log: str) -> tuple[Chart, list[str]]:
    """The chart without the points that a logarithmic axis cannot show, and how many."""
    axes: Sequence[str] = AXES[log]
    if "x" in axes and full.categories:
        raise UserError(f"a logarithmic x axis needs numbers, and {full.x} has other values")
    remarks = []
    for axis in axes:
        column = {"x": "x", "y": "mean"}[axis]
        lines: list[Line] = []
        for line in full.lines:
            # A gap (NaN) stays one, and a level has no x.
            fits = ~(line.points[column] <= 0) | (line.level and axis == "x")
            lines.append(replace(line, points=line.points[fits].reset_index(drop=True)))
            if lost := int((~fits).sum()):
                remarks.append(
                    f"{line.place}: not on the logarithmic {axis} axis, as 0 or below: {lost}"
                )
        full = replace(full, lines=lines)
    if "y" in axes:
        cut = sum(int((ln.points["mean"] <= ln.points["std"]).sum()) for ln in full.lines)
        if cut:
            remarks.append(
                f"spreads cut on the logarithmic y axis, as they reach 0 or below: {cut}"
            )
    return full, remarks


def caption(shown: Chart) -> str:
    """The caption: the kind of spread and the number of runs, which names at lines do not show."""
    chosen = selected(cell for line in shown.lines for cell in line.cells)
    if direct_names(shown) is None:
        return f"{SPREAD} (number of runs){chosen}"
    says = [f"{SPREAD}{chosen}"]
    most = max(int(n) for line in shown.lines for n in line.points["n"])
    full = [set(ln.points["n"]) == {most} and not missing(ln.cells) for ln in shown.lines]
    odd = [ln for ln, is_full in zip(shown.lines, full, strict=True) if not is_full]
    if len(odd) < len(full):
        says.append(f"{most} runs each{', but' if odd else ''}" if most > 1 else "one run each")
    says += [", ".join(filter(None, (line.panel, line.legend()))) for line in odd]
    return "; ".join(says).replace("but; ", "but ")


def _summary(suite: Suite, shown: Chart) -> str:
    """One line on the data: statistics, selection, runs, seeds, losses."""
    cells = [cell for line in shown.lines for cell in line.cells]
    unit = " in percent" if is_share(shown.y) else ""
    facts = [
        f"{shown.y}{unit} against {shown.x}, lines by {shown.by} ({len(shown.lines)}): {SPREAD}"
    ]
    if shown.curves:
        facts.append("seeds aligned by linear interpolation over the range they share")
    chosen = sum(cell.rivals > 1 and bool(cell.setting) for cell in cells)
    what = "lines" if shown.curves else "points"
    facts.append(f"dev selected between settings for {chosen} of {len(cells)} {what}")
    seeds = {tuple(cell.done.loc[cell.values.index, "seed"]) for cell in cells if len(cell.values)}
    listed = ", ".join(map(str, sorted(set().union(*seeds))))
    facts.append(f"seeds {listed}" + (f", but not all for all {what}" if len(seeds) > 1 else ""))
    lost = suite.frame["status"][suite.frame["status"] != "done"].value_counts().sort_index()
    bare = sum(len(cell.done) - len(cell.values) for cell in cells)
    gone = [f"{count} {status}" for status, count in lost.items()]
    gone += [f"{bare} without a number"] if bare else []
    facts.append(f"runs shown: {sum(len(cell.values) for cell in cells)} of {len(suite.frame)}")
    facts.append(f"missing: {', '.join(gone) or 'none'}")
    return "; ".join(facts)


def _notes(line: Line) -> list[str]:
    """The settings that competed, the names of missing runs, and gaps."""
    remarks = notes(line.cells)
    if gaps := int(line.points["mean"].isna().sum()):
        remarks.append(f"{line.place}: points without a finite number, left as gaps: {gaps}")
    return remarks
