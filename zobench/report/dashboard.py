"""`zobench dashboard SUITE`: a report in W&B with the comparisons of the suite's table and plots.

Each task has a grid of panels over the runs that the table counts: those of the setting that dev
selects in each row. These runs are found in the run folders; the panels draw the data that
`logger=wandb` has sent to W&B.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from zobench.errors import UserError
from zobench.report.formats import markdown
from zobench.report.plots.cells import cells
from zobench.report.runs import Suite, read_suite, suite_parser
from zobench.report.score import score_sheet
from zobench.report.scoring import rules_of, scored
from zobench.report.table import table
from zobench.report.wandb_login import require_login

if TYPE_CHECKING:
    import wandb_workspaces.reports.v2 as wr

AXES = {"cost/forwards": "forwards", "time/train_s": "seconds of training", "cost/tokens": "tokens"}


def dashboard(root: Path, name: str, project: str, entity: str | None) -> "wr.Report":
    """The report of a suite, not saved. entity: None is the user's own, looked up in W&B."""
    workspaces = _workspaces()
    suite = read_suite(root, name)
    rows = [key.strip() for key in (suite.preset("table", "rows") or "optimizer").split(",")]
    metric = suite.preset("table", "metric") or "test/accuracy"
    dev = "dev/accuracy" if "dev/accuracy" in suite.metrics else "dev/loss"
    shown = cells(suite, ",".join(rows), metric)
    tasks = dict.fromkeys(cell.column for cell in shown)
    blocks: list[Any] = [workspaces.MarkdownBlock(text=table(root, name, format="markdown"))]
    if scores := _scores(suite):
        blocks += [workspaces.H2(text="Scores"), workspaces.MarkdownBlock(text=scores)]
    for task in tasks:
        runs = sorted(run for cell in shown if cell.column == task for run in cell.runs["wandb"])
        grid = workspaces.PanelGrid(
            runsets=[_runset(workspaces, suite, task, runs, rows)],
            panels=_panels(workspaces, dev, metric, rows),
        )
        blocks += [workspaces.H2(text=task), grid] if task else [grid]
    owner = {} if entity is None else {"entity": entity}
    return workspaces.Report(
        project=project,
        title=name[:128],  # W&B's limit
        description="Made by `zobench dashboard`; the settings shown were selected on dev.",
        width="fluid",
        blocks=blocks,
        **owner,
    )


def _scores(suite: Suite) -> str:
    """The suite's scores as a table; empty below two rows, or without a target."""
    try:
        found = scored(suite, rules_of(suite))
    except UserError:  # no baseline, no curves of dev, or nothing finished
        return ""
    return markdown(score_sheet(found)) if len(found.profiles) > 1 else ""


def specification(report: "wr.Report") -> dict[str, Any]:
    """The report as W&B would store it, with ids that number its parts instead of random ones."""
    spec = json.loads(report._to_model().spec.model_dump_json(by_alias=True, exclude_none=True))
    grids = [block["metadata"] for block in spec["blocks"] if block["type"] == "panel-grid"]
    for n, grid in enumerate(grids):
        for m, runset in enumerate(grid["runSets"]):
            runset["id"] = f"runset-{n}-{m}"
        for m, panel in enumerate(grid["panelBankSectionConfig"]["panels"]):
            panel["__id__"] = f"panel-{n}-{m}"
    about = {key: getattr(report, key) for key in ("entity", "project", "title", "description")}
    return about | {"spec": spec}


def _runset(
    workspaces: ModuleType, suite: Suite, task: str, runs: Sequence[str], rows: Sequence[str]
) -> Any:
    """The suite's runs in the report's own project; those of one task and setting, if not all."""
    filters = f'Metric("Group") == {_literal(suite.name)}'
    if len(runs) < len(suite.frame):
        filters += f' and Metric("ID") in [{", ".join(map(_literal, runs))}]'
    return workspaces.Runset(
        name=task or suite.name,
        filters=filters,
        groupby=[f"config.{column(key)}" for key in rows],
    )


def _literal(text: str) -> str:
    """A text in wandb-workspaces' filter language, which misreads quotes, = and <."""
    safe = (c if c.isascii() and c.isalnum() else f"\\U{ord(c):08x}" for c in text)
    return '"' + "".join(safe) + '"'


def _panels(workspaces: ModuleType, dev: str, metric: str, rows: Sequence[str]) -> list[Any]:
    """Dev against each cost; below the training loss, the table's metric, and it against memory."""
    # Several keys are grouped by the runset alone: a panel has room for one.
    by: dict[str, Any] = {"groupby": workspaces.Config(column(rows[0]))} if len(rows) == 1 else {}
    by |= {"groupby_aggfunc": "mean", "groupby_rangefunc": "stddev"}

    def place(n: int) -> Any:
        return workspaces.Layout(x=8 * (n % 3), y=8 * (n // 3), w=8, h=8)  # of 24 columns

    def line(n: int, x: str, y: str) -> Any:
        title = f"{y} against {AXES[x]}"
        return workspaces.LinePlot(
            title=title, x=x, y=[y], title_x=AXES[x], title_y=y, layout=place(n), **by
        )

    bars = workspaces.BarPlot(
        title=f"{metric} by {', '.join(rows)}", metrics=[metric], layout=place(4), **by
    )
    points = workspaces.ScatterPlot(
        title=f"{metric} against memory",
        x=workspaces.SummaryMetric("memory/peak_gib"),
        y=workspaces.SummaryMetric(metric),
        layout=place(5),
    )
    lines = [line(n, x, dev) for n, x in enumerate(AXES)]
    return [*lines, line(3, "cost/forwards", "train/loss"), bars, points]


def column(key: str) -> str:
    """Where W&B has a choice or config key: `optimizer.lr` is `optimizer/lr` there."""
    return key.replace(".", "/")


def _workspaces() -> ModuleType:
    try:
        import wandb_workspaces.reports.v2 as workspaces
    except ImportError as error:
        raise UserError(
            "zobench dashboard needs wandb-workspaces: pip install zobench[dashboard]"
        ) from error
    return workspaces


def main(argv: list[str]) -> int:
    """Command line of `zobench dashboard`."""
    parser = suite_parser(
        "dashboard",
        "A W&B report of a suite whose runs were logged with logger=wandb: curves of dev against "
        "forwards, seconds and tokens, training loss, test results, memory, and the table.",
        "zobench dashboard quickstart --dry-run",
    )
    parser.add_argument("--project", default="zobench", help="where the runs are (zobench)")
    parser.add_argument("--entity", help="W&B user or team (default: your own)")
    parser.add_argument(
        "--dry-run", action="store_true", help="print the report's specification, without W&B"
    )
    given = parser.parse_args(argv)
    if given.dry_run:
        report = dashboard(given.runs, given.suite, given.project, given.entity or "")
        print(json.dumps(specification(report), indent=2))
        return 0
    require_login()
    try:
        print(dashboard(given.runs, given.suite, given.project, given.entity).save().url)
    except UserError:
        raise
    except Exception as error:  # W&B's client has no common type for refusals of the server
        raise UserError(f"W&B did not take the report: {error}") from error
    return 0
