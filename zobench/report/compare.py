"""`zobench compare SUITE`: is a row better than the baseline, seed by seed, at the suite's budget?

Every row is shown at the setting that dev selects, as in `zobench table`. The difference to the
baseline is taken per seed, which removes what both have in common (the data's order), and its mean
stands with a 95 % interval of Student's t: wide at three seeds, as it should be.
"""

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from zobench.errors import UserError
from zobench.report.numbers import is_share
from zobench.report.plots.draw import COLOURS, STYLE
from zobench.report.runs import Suite, read_suite, suite_parser
from zobench.report.selection import choose
from zobench.report.statistics import student_half_width


@dataclass(frozen=True)
class Difference:
    """A row against the baseline. low, high: the interval, NaN below two common seeds."""

    label: str
    mean: float  # of the row itself
    difference: float
    low: float
    high: float
    seeds: int  # that both have finished

    @property
    def verdict(self) -> str:
        if not self.low <= 0.0 <= self.high:
            return "unknown" if math.isnan(self.low) else "above" if self.low > 0 else "below"
        return "no difference seen"


def compared(suite: Suite, rows: str, baseline: str, metric: str) -> list[Difference]:
    """Every row's difference to the baseline, the largest first.

    Raises UserError when the baseline has no finished runs or no run has the metric.
    """
    suite.check_metric(metric)
    groups = {str(label): g for label, g in suite.frame.groupby(suite.labels(rows))}
    values = {label: _selected(group, metric) for label, group in groups.items()}
    if baseline not in values or values[baseline].empty:
        there = ", ".join(sorted(label for label, seeds in values.items() if not seeds.empty))
        raise UserError(f"no finished runs of the baseline '{baseline}'; there are {there}")
    reference = values[baseline]
    found = [
        _difference(label, seeds, reference)
        for label, seeds in values.items()
        if label != baseline and not seeds.empty
    ]
    return sorted(found, key=lambda d: (-d.difference, d.label))


def _selected(runs: pd.DataFrame, metric: str) -> pd.Series:
    """The metric by seed, of the finished runs of the setting that dev selects."""
    chosen = runs[(runs["setting"] == choose(runs)) & (runs["status"] == "done")]
    return chosen.set_index("seed")[metric].dropna()


def _difference(label: str, seeds: pd.Series, reference: pd.Series) -> Difference:
    both = (seeds - reference).dropna()
    n, mean = len(both), float(both.mean()) if len(both) else math.nan
    half = student_half_width(both.to_numpy(dtype=float))
    return Difference(label, float(seeds.mean()), mean, mean - half, mean + half, n)


def text(found: Sequence[Difference], baseline: str, metric: str) -> str:
    """The comparison as a markdown table."""
    scale, digits = (100.0, 1) if is_share(metric) else (1.0, 4)
    lines = [
        f"| row | {metric} | minus {baseline} | 95 % interval | seeds | |",
        "|---|---:|---:|---:|---:|---|",
    ]
    for d in found:
        mean, gain, low, high = (scale * x for x in (d.mean, d.difference, d.low, d.high))
        span = f"{low:+.{digits}f} to {high:+.{digits}f}" if d.seeds > 1 else ""
        lines.append(
            f"| {d.label} | {mean:.{digits}f} | {gain:+.{digits}f} | {span} | {d.seeds} |"
            f" {d.verdict} |"
        )
    return "\n".join(lines) + "\n"


def draw(found: Sequence[Difference], baseline: str, metric: str, budget: str, out: Path) -> None:
    """A dot and an interval per row, around the baseline's line."""
    import matplotlib.style
    from matplotlib.figure import Figure

    scale = 100.0 if is_share(metric) else 1.0
    with matplotlib.style.context(["default", STYLE]):
        figure = Figure(figsize=(7.5, 1.2 + 0.19 * len(found)), layout="constrained")
        axes = figure.add_subplot()
        axes.axvline(0.0, color="black", linewidth=1.0)
        for place, d in enumerate(reversed(found)):
            colour = {"above": COLOURS[2], "below": COLOURS[1]}.get(d.verdict, "#888888")
            axes.plot([scale * d.low, scale * d.high], [place, place], color=colour)
            axes.plot(scale * d.difference, place, "o", color=colour)
        axes.set_yticks(range(len(found)), [d.label for d in reversed(found)], fontsize="small")
        axes.set_ylim(-1, len(found))
        units = "points" if scale == 100.0 else ""
        axes.set_xlabel(f"{metric} minus {baseline}'s, {units}".rstrip(", "))
        axes.set_title(f"Better than {baseline} at {budget}? mean and 95 % interval over seeds")
        figure.savefig(out, dpi=120)


def main(arguments: Sequence[str]) -> int:
    """`zobench compare SUITE`: print the table and draw the figure."""
    parser: argparse.ArgumentParser = suite_parser(
        "compare", "Rows against a baseline, with intervals.", "zobench compare all_tiny"
    )
    parser.add_argument("--baseline", default="mezo", help="the row to compare with (mezo)")
    parser.add_argument("--rows", default="optimizer", help="what a row is (optimizer)")
    parser.add_argument("--metric", default="test/accuracy", help="(test/accuracy)")
    parser.add_argument("--out", type=Path, help="the figure (default: compare.png in the suite)")
    given = parser.parse_args(arguments)
    suite = read_suite(given.runs, given.suite)
    found = compared(suite, given.rows, given.baseline, given.metric)
    print(text(found, given.baseline, given.metric), end="")
    out = given.out or suite.path / "compare.png"
    forwards = suite.frame["cost/forwards"].max()
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        draw(found, given.baseline, given.metric, f"{forwards:.0f} forwards", out)
    except (OSError, ValueError) as error:
        raise UserError(f"cannot write {out}: {error}") from error
    print(out)
    return 0
