"""`zobench table SUITE`: run folders to a table of mean and spread over seeds.

Settings are never averaged together, and where several compete for a cell the dev split chooses.
"""

from pathlib import Path

from zobench.errors import UserError
from zobench.report.brief import brief
from zobench.report.detailed import detailed
from zobench.report.formats import FORMATS
from zobench.report.layout import View, lay_out
from zobench.report.numbers import order, target_of
from zobench.report.runs import Suite, read_suite, suite_parser
from zobench.report.selection import SELECTS
from zobench.report.sheet import Sheet

DEFAULTS = {"rows": "optimizer", "columns": "task", "metric": "test/accuracy", "select": "mean"}


def table(
    root: Path, suite: str, *, format: str = "text", details: bool = False, **options: str | None
) -> str:
    """The table of one suite in a format; options as in `sheet`. CSV has the details always."""
    if format not in FORMATS:
        raise UserError(f"unknown format '{format}'; choose one of {', '.join(FORMATS)}")
    details = details or format == "csv"
    return FORMATS[format](sheet(read_suite(root, suite), details=details, **options))


def sheet(
    suite: Suite,
    *,
    details: bool = False,
    rows: str | None = None,
    columns: str | None = None,
    metric: str | None = None,
    target: str | None = None,
    select: str | None = None,
    baseline: str | None = None,
) -> Sheet:
    """The table of one suite as texts and numbers; defaults are in its `table:` key.

    details: with intervals, tests, published numbers and all costs, under the names of options;
    so is a table with a given baseline.
    """
    given = {"rows": rows, "columns": columns, "metric": metric, "select": select}
    chosen = {
        key: value or suite.preset("table", key) or DEFAULTS[key] for key, value in given.items()
    }
    if chosen["select"] not in SELECTS:
        raise UserError(f"table.select={chosen['select']}: choose one of {', '.join(SELECTS)}")
    if baseline is not None:
        there = sorted(set(suite.labels(chosen["rows"])), key=order)
        if baseline not in there:
            raise UserError(f"baseline '{baseline}' is no row; there are {', '.join(there)}")
        details = True
    elif rows is None and details:  # the suite's own baseline is one of its own rows
        baseline = suite.preset("table", "baseline")
    goal = target or suite.preset("table", "target")
    share = None if goal is None else target_of(goal)
    made = lay_out(suite, View(**chosen, baseline=baseline, target=share))
    return detailed(made) if details else brief(made)


def main(argv: list[str]) -> int:
    """Command line of `zobench table`."""
    parser = suite_parser(
        "table",
        "Mean and sample standard deviation over seeds, from the run folders of a suite, a line "
        "per method. The best of a column is marked, and what differs from it by no more than "
        "noise. Where several settings compete for a cell, the dev split selects. --details adds "
        "95 % intervals, tests, the published numbers that the suite names, costs and notes.",
        "zobench table quickstart --rows optimizer --columns task --format latex",
    )
    keys = "choices (optimizer, task, ...) or config keys (optimizer.lr), joined by commas"
    parser.add_argument("--rows", help=f"{keys}; default: the suite's, or optimizer")
    parser.add_argument("--columns", help=f"{keys}; default: the suite's, or task")
    parser.add_argument("--metric", help="a number of the results; default: test/accuracy")
    parser.add_argument("--target", help="also show the forwards to this dev accuracy, as in 0.9")
    parser.add_argument(
        "--select", help="what dev chooses: one setting for all seeds (mean), or for each (seed)"
    )
    parser.add_argument(
        "--baseline", help="the row to test the others against, as in mezo; adds --details"
    )
    parser.add_argument(
        "--details", action="store_true", help="intervals, tests, published numbers, costs, notes"
    )
    parser.add_argument("--format", default="text", help=f"{', '.join(FORMATS)} (default: text)")
    options = vars(parser.parse_args(argv))
    print(table(options.pop("runs"), options.pop("suite"), **options), end="")
    return 0
