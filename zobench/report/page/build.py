"""`zobench report SUITE`: one HTML file that needs nothing but a browser.

Styles, scripts and data are inside it, and its content policy forbids it to load anything.
"""

import json
import tempfile
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from zobench import __version__
from zobench.errors import UserError
from zobench.report.html import address, rendered
from zobench.report.launches import waiting
from zobench.report.page.data import page_data, view_of
from zobench.report.page.grid import grid
from zobench.report.page.scores import scores_of
from zobench.report.plots.options import FigureOptions
from zobench.report.plots.pareto import pareto
from zobench.report.runs import STATUSES, Suite, read_suite, suite_parser

PARTS = Path(__file__).parent / "assets"  # template, styles and scripts
STYLES = ("page.css", "panels.css")
SCRIPTS = (
    *("format.js", "export.js", "lines.js", "scale.js", "chart.js", "legend.js", "runs.js"),
    *("rates.js", "parallel.js", "compare.js", "page.js"),
)


def page(root: Path, suite: str) -> str:
    """The report of one suite as HTML."""
    from markupsafe import Markup

    runs = read_suite(root, suite)
    data, details = page_data(runs), grid(runs, details=True)
    data["csv"] = details.csv
    counts = Counter(runs.frame["status"])
    times = [run[key] for run in data["runs"] for key in ("begun", "ended") if run[key]]
    scripts = [(PARTS / name).read_text(encoding="utf-8") for name in SCRIPTS]
    return rendered(
        "page/assets/template.html.j2",
        styles=Markup("\n".join((PARTS / name).read_text(encoding="utf-8") for name in STYLES)),
        scripts=Markup("\n".join(scripts)),
        suite=suite,
        version=__version__,
        written=datetime.now(UTC).strftime("%Y-%m-%d %H:%M"),
        begun=min(times, default=""),
        ended=max(times, default=""),
        commits=sorted(set(runs.frame["commit"])),
        devices=sorted(set(runs.frame["device"]) - {"None"}),
        tasks=_values(data, "task"),
        models=_values(data, "model"),
        counts={status: counts[status] for status in STATUSES if counts[status]},
        total=len(runs.frame),
        waiting=waiting(root, suite),
        table=grid(runs),
        details=details,
        fronts=fronts(runs),
        scores=scores_of(runs),
        data=Markup(embedded(data)),
    )


def fronts(suite: Suite) -> list[dict[str, str]]:
    """Quality against memory and against time, one figure each; none where no row has both.

    Each has the text of the figure and an address that holds the figure itself.
    """
    view, found = view_of(suite), []
    for cost in ("memory/peak_gib", "time/train_s"):
        options = FigureOptions(
            x=cost, y=view["metric"], lines=view["rows"], log="none", target=0.0
        )
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "front.svg"
            try:
                said = pareto(suite, options, out)
            except UserError:  # no finished run, or a metric that is the cost itself
                continue
            found.append({"text": ". ".join(said[:2]), "source": address(out)})
    return found


def embedded(data: Any) -> str:
    """JSON for a script element: nothing in it can close the element or open a comment."""
    text = json.dumps(data, allow_nan=False, separators=(",", ":"), default=str)
    return text.replace("<", "\\u003c").replace(">", "\\u003e")


def _values(data: dict[str, Any], choice: str) -> list[str]:
    return sorted({run["choices"].get(choice, "-") for run in data["runs"]})


def main(argv: list[str]) -> int:
    """Command line of `zobench report`."""
    parser = suite_parser(
        "report",
        "One self-contained HTML page: the table, curves to explore, scores against memory and "
        "time, the area under performance profiles, every run with its settings, "
        "failures with the end of their logs. Made from the run folders alone.",
        "zobench report quickstart --out quickstart.html",
    )
    parser.add_argument("--out", type=Path, help="the file (default: report.html in the suite)")
    given = parser.parse_args(argv)
    html = page(given.runs, given.suite)
    out = given.out or given.runs / given.suite / "report.html"
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(html, encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot write {out}: {error}") from error
    print(out)
    return 0
