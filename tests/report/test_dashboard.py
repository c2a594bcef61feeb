"""`zobench dashboard`: what the W&B report would hold, without W&B."""

import importlib.util
import json
import socket
import sys
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from zobench.errors import UserError
from zobench.report import dashboard as module
from zobench.report.dashboard import main

SUITE = 'it\'s a=1 < "b" or ü'  # what a filter in W&B's language could trip over

pytestmark = [
    pytest.mark.skipif(
        importlib.util.find_spec("wandb_workspaces") is None,
        reason="wandb-workspaces is not installed (pip install zobench[dashboard])",
    ),
    # W&B's own use of pydantic 1's decorators
    pytest.mark.filterwarnings("ignore:Pydantic V1 style:DeprecationWarning:wandb_workspaces"),
]


def write_run(
    root: Path,
    optimizer: str,
    *,
    lr: float = 0.1,
    task: str = "sst2",
    seed: int = 0,
    dev: float = 0.5,
    table: dict[str, str] | None = None,
    measure: str = "accuracy",
) -> str:
    """Write a finished run of `SUITE`; returns its id in W&B."""
    setting = f"{optimizer}-{task}-{lr}"
    run = f"{setting}-{seed}"
    folder = root / SUITE / run
    folder.mkdir(parents=True)
    config = {"optimizer": {"lr": lr}, "budget": {"steps": 2}, "seed": seed, "table": table or {}}
    meta = {"id": run, "setting": setting, "seed": seed}
    meta |= {"choices": {"optimizer": optimizer, "task": task}}
    if seed % 2 == 1:  # the others are of before runs had an id of their own there
        meta["wandb"] = f"suite-{run}"
    result = {"status": "done", "test": {measure: 0.6}, "dev": {measure: dev}}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    (folder / "meta.json").write_text(json.dumps(meta))
    (folder / "result.json").write_text(json.dumps(result))
    return str(meta.get("wandb", run))


def specification(
    root: Path, capsys: pytest.CaptureFixture[str], *more: str
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """What --dry-run prints, and the panel grids in it."""
    capsys.readouterr()
    assert main([SUITE, "--runs", str(root), "--dry-run", *more]) == 0
    printed = json.loads(capsys.readouterr().out)
    blocks = printed["spec"]["blocks"]
    return printed, [block["metadata"] for block in blocks if block["type"] == "panel-grid"]


def filters(runset: dict[str, Any]) -> list[tuple[str, str, Any]]:
    assert {f["key"]["section"] for f in runset["filters"]["filters"]} == {"run"}
    return [(f["key"]["name"], f["op"], f["value"]) for f in runset["filters"]["filters"]]


def configs(grid: dict[str, Any], kind: str) -> Iterable[dict[str, Any]]:
    panels = grid["panelBankSectionConfig"]["panels"]
    return [panel["config"] for panel in panels if panel["viewType"] == kind]


def test_the_report_has_the_comparisons_of_table_and_plots(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dev against each cost, training loss, test by optimizer, accuracy against memory, the table.

    The runs are those of the suite, grouped by optimizer, and nothing goes over the network.
    """

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("the network was asked")

    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, refuse)
    for optimizer in ("mezo", "adamw"):
        write_run(tmp_path, optimizer)
    printed, [grid] = specification(tmp_path, capsys, "--project", "p", "--entity", "e")
    assert (printed["title"], printed["project"], printed["entity"]) == (SUITE, "p", "e")
    lines = [(c["xAxis"], c["metrics"]) for c in configs(grid, "Run History Line Plot")]
    assert lines == [
        ("cost/forwards", ["dev/accuracy"]),
        ("time/train_s", ["dev/accuracy"]),
        ("cost/tokens", ["dev/accuracy"]),
        ("cost/forwards", ["train/loss"]),
    ]
    [bars] = configs(grid, "Bar Chart")
    assert (bars["metrics"], bars["groupBy"]) == (["test/accuracy"], "optimizer.value")
    [points] = configs(grid, "Scatter Plot")
    assert (points["xAxis"], points["yAxis"]) == (
        "summary:memory/peak_gib",
        "summary:test/accuracy",
    )
    [runset] = grid["runSets"]
    assert filters(runset) == [("group", "=", SUITE)]
    assert runset["grouping"] == [{"section": "config", "name": "optimizer.value"}]
    [text] = [b["content"] for b in printed["spec"]["blocks"] if b["type"] == "markdown-block"]
    assert "| MeZO | 60.0 |" in text
    places = [
        tuple(p["layout"][k] for k in "xywh") for p in grid["panelBankSectionConfig"]["panels"]
    ]
    assert len(set(places)) == len(places) == 6


def test_the_specification_is_the_same_each_time(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """W&B numbers the parts of a report at random; ours can be compared and kept."""
    write_run(tmp_path, "mezo")
    first, [grid] = specification(tmp_path, capsys)
    assert specification(tmp_path, capsys)[0] == first
    panels = [panel["__id__"] for panel in grid["panelBankSectionConfig"]["panels"]]
    assert len(set(panels)) == 6


def test_only_what_dev_selects_is_shown_and_tasks_are_not_mixed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A learning rate that dev does not choose, and another task, are left out by the runs' ids."""
    kept = [write_run(tmp_path, "mezo", lr=0.1, dev=0.9, seed=seed) for seed in (0, 1)]
    for seed in (0, 1):
        write_run(tmp_path, "mezo", lr=0.5, dev=0.4, seed=seed)
    other = write_run(tmp_path, "mezo", task="rte")
    printed, grids = specification(tmp_path, capsys)
    shown = {grid["runSets"][0]["name"]: filters(grid["runSets"][0]) for grid in grids}
    assert shown == {
        "rte": [("group", "=", SUITE), ("name", "IN", [other])],
        "sst2": [("group", "=", SUITE), ("name", "IN", kept)],
    }
    headings = [b for b in printed["spec"]["blocks"] if b["type"] == "heading"]
    assert [h["children"][0]["text"] for h in headings] == ["rte", "sst2"]


def test_rows_and_metric_are_the_suites_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A table of learning rates groups by W&B's column of them; without accuracies the loss counts.

    Several keys are left to the group of runs, as a panel has room for one.
    """
    table = {"rows": "optimizer.lr", "metric": "test/loss"}
    for lr in (0.1, 0.2):
        write_run(tmp_path / "one", "mezo", lr=lr, table=table, measure="loss")
        write_run(tmp_path / "two", "mezo", lr=lr, table={"rows": "optimizer.lr, seed"})
    _, [grid] = specification(tmp_path / "one", capsys)
    assert [key["name"] for key in grid["runSets"][0]["grouping"]] == ["optimizer/lr.value"]
    [bars] = configs(grid, "Bar Chart")
    assert (bars["metrics"], bars["groupBy"]) == (["test/loss"], "optimizer/lr.value")
    curves = configs(grid, "Run History Line Plot")
    assert [c["metrics"] for c in curves] == 3 * [["dev/loss"]] + [["train/loss"]]
    _, [grid] = specification(tmp_path / "two", capsys)
    names = [key["name"] for key in grid["runSets"][0]["grouping"]]
    assert names == ["optimizer/lr.value", "seed.value"]
    assert not any("groupBy" in c for c in configs(grid, "Bar Chart"))


def test_without_the_package_or_a_login_one_sentence_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The extra to install, or that nobody is logged in, before anything is made."""
    write_run(tmp_path, "mezo")

    def refuse() -> None:
        raise UserError("not logged in")

    monkeypatch.setattr(module, "require_login", refuse)
    with pytest.raises(UserError, match=r"^not logged in$"):
        main([SUITE, "--runs", str(tmp_path)])
    monkeypatch.setitem(sys.modules, "wandb_workspaces.reports.v2", None)
    with pytest.raises(UserError, match=r"pip install zobench\[dashboard\]"):
        main([SUITE, "--runs", str(tmp_path), "--dry-run"])


def test_the_report_that_is_saved_is_the_one_that_was_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Saving hands the same specification over and prints the address; a refusal is one line."""
    import wandb_workspaces.reports.v2 as wr

    write_run(tmp_path, "mezo")
    shown, _ = specification(tmp_path, capsys, "--entity", "e")
    saved: list[dict[str, Any]] = []

    def save(report: wr.Report) -> SimpleNamespace:
        saved.append(module.specification(report))
        return SimpleNamespace(url="https://here")

    monkeypatch.setattr(module, "require_login", lambda: None)
    monkeypatch.setattr(wr.Report, "save", save)
    assert main([SUITE, "--runs", str(tmp_path), "--entity", "e"]) == 0
    assert capsys.readouterr().out == "https://here\n"
    assert saved == [shown]

    def fail(_: wr.Report) -> None:
        raise RuntimeError("permission denied")

    monkeypatch.setattr(wr.Report, "save", fail)
    with pytest.raises(UserError, match="W&B did not take the report: permission denied"):
        main([SUITE, "--runs", str(tmp_path), "--entity", "e"])
