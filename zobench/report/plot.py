"""`zobench plot SUITE`: run folders to a figure of means with their spread over seeds."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from zobench.errors import UserError
from zobench.report.draw import draw
from zobench.report.formats import is_share
from zobench.report.lines import Chart, Line, chart
from zobench.report.runs import Suite, read_suite, suite_parser

DEFAULTS = {"x": "cost/forwards", "y": "dev/accuracy", "lines": "optimizer", "log": "none"}
AXES = {"none": (), "x": ("x",), "y": ("y",), "both": ("x", "y")}
SUFFIXES = (".png", ".svg")
SPREAD = "mean and sample standard deviation over seeds"


def plot(
    root: Path,
    suite: str,
    *,
    x: str | None = None,
    y: str | None = None,
    lines: str | None = None,
    log: str | None = None,
    out: Path | None = None,
) -> str:
    """Draw the figure of one suite; returns where it is, what it shows and what it does not.

    What is not said comes from the suite's `plot:` key. Without `out` it lands in the suite.
    """
    runs = read_suite(root, suite)
    given = {"x": x, "y": y, "lines": lines, "log": log}
    said = {key: value or runs.preset("plot", key) or DEFAULTS[key] for key, value in given.items()}
    if said["log"] not in AXES:
        raise UserError(f"unknown log '{said['log']}'; choose one of {', '.join(AXES)}")
    out = out or runs.path / f"{suite}.png"
    if out.suffix not in SUFFIXES:
        raise UserError(f"cannot write {out}: the suffix must be {' or '.join(SUFFIXES)}")
    full = chart(runs, said["x"], said["y"], said["lines"])
    shown, notes = _on_log_axes(full, AXES[said["log"]])
    notes = [*notes, *_notes(shown)]
    if all(line.points.empty for line in shown.lines):
        raise UserError(f"nothing to plot in suite '{suite}': {'; '.join(notes)}")
    chosen = any(cell.rivals > 1 and cell.setting for line in full.lines for cell in line.cells)
    caption = f"{SPREAD} (number of runs){'; dev selected between settings' if chosen else ''}"
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        draw(shown, said["log"], caption, out)
    except OSError as error:
        raise UserError(f"cannot write {out}: {error}") from error
    return "\n".join([str(out), _summary(runs, shown), *notes]) + "\n"


def _on_log_axes(full: Chart, axes: Sequence[str]) -> tuple[Chart, list[str]]:
    """The chart without the points that a logarithmic axis has no place for, and how many."""
    if "x" in axes and full.categories:
        raise UserError(f"a logarithmic x axis needs numbers, and {full.x} has other values")
    notes = []
    for axis in axes:
        column = {"x": "x", "y": "mean"}[axis]
        lines: list[Line] = []
        for line in full.lines:
            # A gap (NaN) stays one, and a level has no x.
            fits = ~(line.points[column] <= 0) | (line.level and axis == "x")
            lines.append(replace(line, points=line.points[fits].reset_index(drop=True)))
            if lost := int((~fits).sum()):
                where = ", ".join(filter(None, (line.label, line.panel)))
                notes.append(f"{where}: not on the logarithmic {axis} axis, as 0 or below: {lost}")
        full = replace(full, lines=lines)
    if "y" in axes:
        cut = sum(int((ln.points["mean"] <= ln.points["std"]).sum()) for ln in full.lines)
        if cut:
            notes.append(f"spreads cut on the logarithmic y axis, as they reach 0 or below: {cut}")
    return full, notes


def _summary(suite: Suite, shown: Chart) -> str:
    """One line on what every number rests on: statistics, selection, runs, seeds, losses."""
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
    missing = [f"{count} {status}" for status, count in lost.items()]
    missing += [f"{bare} without a number"] if bare else []
    facts.append(f"runs shown: {sum(len(cell.values) for cell in cells)} of {len(suite.frame)}")
    facts.append(f"missing: {', '.join(missing) or 'none'}")
    return "; ".join(facts)


def _notes(shown: Chart) -> list[str]:
    """What competed with what is shown, and every run that is missing by name."""
    notes = []
    for line in shown.lines:
        for cell in line.cells:
            where = ", ".join(filter(None, (cell.row, cell.column)))
            notes += [f"{where}: {note}" for note in cell.notes]
        if gaps := int(line.points["mean"].isna().sum()):
            where = ", ".join(filter(None, (line.label, line.panel)))
            notes.append(f"{where}: points without a finite number, left as gaps: {gaps}")
    return notes


def main(argv: list[str]) -> int:
    """Command line of `zobench plot`."""
    parser = suite_parser(
        "plot",
        "Curves over a metric, or a point per value of a setting: mean and sample standard "
        "deviation over seeds. Where several settings compete, the dev split selects.",
        "zobench plot quickstart --x cost/forwards --y dev/loss --lines optimizer --log y",
    )
    parser.add_argument("--x", help="a metric of metrics.jsonl, or a choice or config key")
    parser.add_argument("--y", help="a metric of metrics.jsonl; a result where x is a setting")
    parser.add_argument("--lines", help="choices or config keys (a,b), or 'setting': no selection")
    parser.add_argument("--log", help=f"logarithmic axes: {', '.join(AXES)}")
    parser.add_argument("--out", type=Path, help="a .png or .svg (default: SUITE.png in the suite)")
    options = vars(parser.parse_args(argv))
    print(plot(options.pop("runs"), options.pop("suite"), **options), end="")
    return 0
