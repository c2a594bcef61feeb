"""`zobench plot SUITE`: run folders to a figure, in one of a few kinds."""

from collections.abc import Callable
from pathlib import Path

from zobench.errors import UserError
from zobench.report.numbers import target_of
from zobench.report.plots.curves import AXES, curves
from zobench.report.plots.draw import SILENT
from zobench.report.plots.options import FigureOptions
from zobench.report.plots.pareto import pareto
from zobench.report.plots.profile import profile
from zobench.report.plots.rates import rates
from zobench.report.plots.target import target as target_bars
from zobench.report.runs import Suite, read_suite, suite_parser

KINDS: dict[str, Callable[[Suite, FigureOptions, Path], list[str]]] = {
    "curves": curves,
    "target": target_bars,
    "pareto": pareto,
    "rates": rates,
    "profile": profile,
}
# The defaults of each kind.
DEFAULTS = {
    "curves": {"x": "cost/forwards", "y": "dev/accuracy", "log": "none"},
    "target": {"x": "cost/forwards", "y": "dev/accuracy", "log": "none"},
    "pareto": {"x": "memory/peak_gib", "y": "test/accuracy", "log": "none"},
    "rates": {"x": "optimizer.lr", "y": "dev/accuracy", "log": "x"},
    "profile": {"x": "cost/forwards", "y": "dev/loss", "log": "none"},
}
TARGET = "0.9"


def plot(
    root: Path,
    suite: str,
    *,
    kind: str | None = None,
    x: str | None = None,
    y: str | None = None,
    lines: str | None = None,
    log: str | None = None,
    target: str | None = None,
    out: Path | None = None,
) -> str:
    """Draw the figure of one suite; returns its path, what it shows and what is missing.

    Defaults come from the suite's `plot:` key, its axes only for the kind that it names (curves,
    where it names none); the target comes from `table:`. Without `out` the figure is written into
    the suite. UserError for an unknown kind, scale or format, or where there is nothing to show.
    """
    runs = read_suite(root, suite)
    usual = runs.preset("plot", "kind") or "curves"
    kind = kind or usual
    if kind not in KINDS:
        raise UserError(f"unknown kind '{kind}'; choose one of {', '.join(KINDS)}")
    given = {"x": x, "y": y, "log": log}
    chosen = {
        key: value or (runs.preset("plot", key) if kind == usual else None) or DEFAULTS[kind][key]
        for key, value in given.items()
    }
    if chosen["log"] not in AXES:
        raise UserError(f"unknown log '{chosen['log']}'; choose one of {', '.join(AXES)}")
    rows = lines or runs.preset("plot", "lines") or "optimizer"
    goal = target or runs.preset("table", "target") or TARGET
    options = FigureOptions(**chosen, lines=rows, target=target_of(goal))
    name = suite if kind == usual else f"{suite}-{kind}"
    out = out or runs.path / f"{name}.png"
    if out.suffix not in SILENT:
        raise UserError(f"cannot write {out}: the suffix must be {' or '.join(SILENT)}")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        facts = KINDS[kind](runs, options, out)
    except OSError as error:
        raise UserError(f"cannot write {out}: {error}") from error
    return "\n".join([str(out), *facts]) + "\n"


def main(argv: list[str]) -> int:
    """Command line of `zobench plot`."""
    parser = suite_parser(
        "plot",
        "A figure of a suite, as PNG, SVG or PDF. curves: a metric in the course of training, or a "
        "point per value of a setting. target: the forwards until dev accuracy reached --target. "
        "pareto: accuracy against memory, time or forwards. rates: dev accuracy against the "
        "learning rate. profile: the share of workloads against the cost, as zobench score has it. "
        "Mean and sample standard deviation over seeds; where several settings "
        "compete, the dev split selects.",
        "zobench plot quickstart --x cost/forwards --y dev/loss --lines optimizer --log y",
    )
    parser.add_argument("--kind", help=f"{', '.join(KINDS)}; default: the suite's, or curves")
    parser.add_argument("--x", help="a metric; for curves also a choice or config key")
    parser.add_argument("--y", help="a metric of metrics.jsonl; a result where x is a setting")
    parser.add_argument("--lines", help="choices or config keys (a,b), or 'setting': no selection")
    parser.add_argument("--log", help=f"logarithmic axes: {', '.join(AXES)}")
    parser.add_argument("--target", help="dev accuracy as a fraction; the table's, or 0.9")
    parser.add_argument(
        "--out", type=Path, help="a .png, .svg or .pdf (default: a .png in the suite)"
    )
    options = vars(parser.parse_args(argv))
    print(plot(options.pop("runs"), options.pop("suite"), **options), end="")
    return 0
