"""Figures and pages of a suite whose runs are still under way."""

import json
from pathlib import Path

import pytest

from tests.report.test_page import data_of
from tests.report.test_plot import RISING, SUITE, write_run
from zobench.errors import UserError
from zobench.report.launches import waiting
from zobench.report.page.build import page
from zobench.report.plot import plot
from zobench.report.plots.unfinished import as_it_stands
from zobench.report.runs import read_suite


def test_a_row_without_a_finished_run_is_drawn_as_far_as_it_is(tmp_path: Path) -> None:
    """Its best rate on dev so far is shown, and that it is not finished; other rows are as ever."""
    write_run(tmp_path, optimizer="done")
    write_run(tmp_path, 1, optimizer="done", status="unfinished")
    better = write_run(tmp_path, lr=0.1, status="unfinished", accuracy=(*RISING, (300, 0.95)))
    write_run(tmp_path, lr=0.2, status="unfinished")
    suite, running = as_it_stands(
        read_suite(tmp_path, SUITE), "cost/forwards", "dev/accuracy", "optimizer"
    )
    assert running == ["mezo, sst2"]
    counted = suite.frame[suite.frame["status"] == "done"]
    assert counted["dev/accuracy"].max() == 0.95 and better.name in set(counted["folder"])
    said = plot(tmp_path, SUITE)
    assert "not finished, shown as far as they are: mezo, sst2" in said
    assert "runs shown: 2 of 4" in said and "1 unfinished" in said
    assert (tmp_path / SUITE / f"{SUITE}.png").stat().st_size > 0


def test_a_suite_where_nothing_has_ended_has_a_figure(tmp_path: Path) -> None:
    """Before that there is none, as long as no run has logged the metric."""
    folder = write_run(tmp_path, status="unfinished", accuracy=())
    with pytest.raises(UserError, match="no finished run to plot: 1 unfinished"):
        plot(tmp_path, SUITE)
    row = {"step": 1, "cost/forwards": 2, "dev/accuracy": 0.5, "dev/loss": 0.3}
    (folder / "metrics.jsonl").write_text(json.dumps(row) + "\n")
    assert "mezo, sst2" in plot(tmp_path, SUITE)


def launched(root: Path, name: str, suite: str, runs: int, begun: list[str]) -> None:
    """The log of a launch; the last line is cut, as a process that was killed leaves it."""
    rows = [{"suite": suite, "runs": runs, "command": []}]
    rows += [{"run": run, "status": status} for run in begun for status in ("begun", "done")]
    path = root / ".launches" / f"{name}.jsonl"
    path.parent.mkdir(exist_ok=True)
    path.write_text("\n".join(map(json.dumps, rows)) + '\n{"run": "x')


def test_runs_that_have_not_begun_are_counted(tmp_path: Path) -> None:
    """Those that the suite's latest launch planned, less those that it began, ended or not."""
    assert waiting(tmp_path, SUITE) == 0
    launched(tmp_path, "1", SUITE, 20, [])
    launched(tmp_path, "2", SUITE, 5, ["a", "b"])
    launched(tmp_path, "3", "other", 9, ["a"])
    assert waiting(tmp_path, SUITE) == 3 and waiting(tmp_path, "other") == 8
    write_run(tmp_path)
    html = page(tmp_path, SUITE)
    assert "<b>3</b> waiting" in html and "<b>1</b> run" in html


def test_the_page_says_which_run_is_best_on_dev(tmp_path: Path) -> None:
    """One of each task, by dev accuracy; also which row of the table a run is in."""
    for task in ("sst2", "rte"):
        for lr, dev in ((0.1, 0.7), (0.2, 0.8)):
            write_run(tmp_path, task=task, lr=lr, dev=dev, test=1 - dev)
    write_run(tmp_path, lr=0.3, dev=None, status="unfinished")
    data = data_of(page(tmp_path, SUITE))
    assert data["table"]["rows"] == "optimizer" and {run["row"] for run in data["runs"]} == {"mezo"}
    best = [run for run in data["runs"] if run["best"]]
    assert sorted((run["choices"]["task"], run["config"]["optimizer.lr"]) for run in best) == [
        ("rte", 0.2),
        ("sst2", 0.2),
    ]
