"""`zobench score SUITE...`: rows by what they needed to reach a target in every workload.

The score is AlgoPerf's, from performance profiles; the aggregates are rliable's.
"""

import argparse
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from zobench.errors import UserError
from zobench.report.aggregates import Estimate
from zobench.report.formats import FORMATS
from zobench.report.numbers import is_share, number
from zobench.report.plots.profile import draw_profiles
from zobench.report.profiles import Profile
from zobench.report.runs import add_runs
from zobench.report.score_notes import notes, unit
from zobench.report.scoring import IMPROVEMENT, Scores, rules_of, scored
from zobench.report.sheet import Sheet
from zobench.report.workloads import COSTS, read_suites

AGGREGATES = ("mean", "median", "IQM")


def score(
    root: Path,
    suites: Sequence[str],
    *,
    tuning: Sequence[str] | None = None,
    format: str = "text",
    figure: Path | None = None,
    **options: str | None,
) -> str:
    """The scores of some suites in a format; options as in `rules_of`.

    Args:
        tuning: the suites whose runs count as tuning; none of them named is SUITE_search of each.
        figure: where the profiles are drawn to.
    """
    if format not in FORMATS:
        raise UserError(f"--format {format}: choose one of {', '.join(FORMATS)}")
    suite = read_suites(root, suites)
    rules = rules_of(suite, **options)
    search = None
    if tuning is not None:
        search = read_suites(root, list(tuning) or [f"{name}_search" for name in suites])
    scores = scored(suite, rules, search)
    if figure is not None:
        draw_profiles(scores, figure)
    return FORMATS[format](score_sheet(scores))


def score_sheet(scores: Scores) -> Sheet:
    """Rows by score, with their cost in each workload and their aggregates."""
    rules, key = scores.rules, COSTS[scores.rules.cost]
    percent = " (%)" if is_share(rules.test) else ""
    shown = [*AGGREGATES, IMPROVEMENT] if scores.aggregates else []
    if not any(IMPROVEMENT in mine for mine in scores.aggregates.values()):
        shown = shown[: len(AGGREGATES)]
    heads = {name: f"{name} {rules.test}{percent}" for name in AGGREGATES}
    heads[IMPROVEMENT] = f"P(better than {rules.baseline})"
    profiles = {profile.row: profile for profile in scores.profiles}
    body = []
    for row in scores.rows:
        costs = [
            "-"
            if row not in profiles
            else workload.entries[row].text(key)
            if row in workload.entries
            else "missing"
            for workload in scores.workloads
        ]
        found = scores.aggregates.get(row, {})
        texts = [_text(name, found.get(name), rules.test) for name in shown]
        value = f"{profiles[row].score:.3f}" if row in profiles else "-"
        body.append([row, value, *costs, *texts])
    return Sheet(
        title=f"{scores.suite.name}: score by {unit(scores)} to a target of {rules.metric}",
        header=[
            rules.rows,
            "score",
            *(f"{workload.name}: {rules.cost}" for workload in scores.workloads),
            *(heads[name] for name in shown),
        ],
        body=body,
        notes=notes(scores),
        records=_records(scores, profiles),
    )


def _text(name: str, estimate: Estimate | None, test: str) -> str:
    """For example `91.2 (90.1 to 92.3)`."""
    if estimate is None:
        return "-"
    value, low, high = (f"{x:.2f}" if name == IMPROVEMENT else number(test, x) for x in estimate)
    return f"{value} ({low} to {high})" if not math.isnan(estimate.low) else value


def _records(scores: Scores, profiles: Mapping[str, Profile]) -> list[dict[str, Any]]:
    """A line of the CSV per row and workload; the numbers of a row are in all of its lines."""
    records = []
    for row in scores.rows:
        profile = profiles.get(row)
        aggregates: dict[str, float] = {}
        for name in (*AGGREGATES, IMPROVEMENT):
            estimate = scores.aggregates.get(row, {}).get(name)
            for part in Estimate._fields:
                column = name if part == "value" else f"{name}_{part}"
                aggregates[column] = getattr(estimate, part, math.nan)
        for place, workload in enumerate(scores.workloads):
            entry = workload.entries.get(row)
            records.append(
                {
                    "row": row,
                    "score": profile.score if profile else math.nan,
                    "workload": workload.name,
                    "metric": scores.rules.metric,
                    "target": workload.target,
                    "cost_in": scores.rules.cost,
                    "cap": workload.cap,
                    "cost": workload.cost(row),
                    "ratio": profile.ratios[place] if profile else math.nan,
                    "reached": entry.reached if entry else 0,
                    "runs": len(entry.costs) if entry else 0,
                    "tuning": entry.tuning if entry else math.nan,
                    "setting": entry.cell.setting if entry else "",
                    "test": scores.rules.test,
                    "baseline": scores.rules.baseline,
                    **aggregates,
                }
            )
    return records


def main(argv: list[str]) -> int:
    """Command line of `zobench score`."""
    parser = argparse.ArgumentParser(
        prog="zobench score",
        description="Rows by what they needed to reach a target on dev, over the workloads of one "
        "or more suites: the area under the performance profile, and aggregates of the test "
        "metric with intervals. Where settings compete, the dev split selects.",
        epilog="example: zobench score lab_seeds --cost seconds --target-of mezo@2000",
    )
    parser.add_argument("suites", nargs="+", metavar="SUITE", help="names of folders of runs")
    add_runs(parser)
    keys = "choices or config keys, joined by commas"
    parser.add_argument("--rows", help=f"{keys}; default: the suite's, or optimizer")
    parser.add_argument(
        "--workloads", help=f"{keys}; default: task, model, tuning but for the rows"
    )
    parser.add_argument("--metric", help="the dev metric of the targets; default: dev/loss")
    parser.add_argument("--target", help="a number, or one per workload, as in sst2=0.5,rte=0.6")
    parser.add_argument(
        "--target-of", metavar="ROW", help="the row that sets the targets, or ROW@FORWARDS"
    )
    parser.add_argument("--cost", help=f"{' or '.join(COSTS)} of training; default: forwards")
    parser.add_argument("--cap", help="cost at which a run ends; default: the largest budget")
    parser.add_argument(
        "--tuning", nargs="*", metavar="SUITE", help="add the cost of these; default: SUITE_search"
    )
    parser.add_argument("--test", help="the metric of the aggregates; default: the table's")
    parser.add_argument("--baseline", help="the row of comparison; default: the suite's, or mezo")
    parser.add_argument("--select", help="one setting for all seeds (mean), or for each (seed)")
    parser.add_argument("--format", default="text", help=f"{', '.join(FORMATS)} (default: text)")
    parser.add_argument("--figure", type=Path, help="draw the profiles: a .png, .svg or .pdf")
    options = vars(parser.parse_args(argv))
    print(score(options.pop("runs"), options.pop("suites"), **options), end="")
    return 0
