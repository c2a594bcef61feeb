"""What a command notes of its launch, how far it is, what of it stays."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from zobench.errors import UserError
from zobench.launch import launch_log
from zobench.launch.launch import RetryCounter
from zobench.launch.launch_log import counts, duration, rows_of
from zobench.settings import RunSettings

PLAN: dict[str, Any] = {"time": 100.0, "suite": "s", "command": ["seed=0,1"], "runs": 4}


def row(time: float, run: str | None, status: str) -> dict[str, Any]:
    return {"time": time, "run": run, "status": status}


def test_the_rest_of_a_sweep_takes_as_long_as_what_was_done() -> None:
    """Runs that were there already say nothing about it; a run is in its last state."""
    rows = [PLAN, row(101, "a", "begun"), row(102, "a", "skipped"), row(102, "b", "begun")]
    found = counts(rows)
    assert (found.planned, found.running, found.left_s) == (4, 1, None)
    assert str(found) == "4 runs: 1 skipped, 1 running, 2 waiting"
    rows += [row(160, "b", "done"), row(160, "c", "begun")]
    found = counts(rows)
    assert found.ended == {"skipped": 1, "done": 1} and found.left_s == 120.0
    assert str(found).endswith("1 skipped, 1 done, 1 running, 1 waiting; about 2 min left")
    rows += [row(170, None, "failed")]
    assert counts(rows).ended["failed"] == 1


def test_times_left_are_read_at_a_glance() -> None:
    """Seconds, minutes, hours."""
    assert [duration(x) for x in (40, 720, 12600)] == ["40 s", "12 min", "3.5 h"]


def test_half_a_line_is_left_out(tmp_path: Path) -> None:
    """Of a process that was killed while it wrote."""
    path = tmp_path / "notes"
    path.write_text(json.dumps(PLAN) + "\n" + '{"run": "a", "sta')
    assert rows_of(path) == [PLAN]


def test_notes_that_cannot_be_written_end_the_launch(monkeypatch: pytest.MonkeyPatch) -> None:
    """In one sentence: it would lose count of its runs."""
    monkeypatch.setenv(launch_log.VARIABLE, "/dev/full")
    with pytest.raises(UserError, match="runs_root: the disk is full"):
        launch_log.note({"run": "a", "status": "begun"})


@pytest.mark.parametrize(
    ("overrides", "runs"),
    [
        (("seed=0,1", "optimizer=mezo,adamw"), 4),
        (("optimizer.lr=choice(1e-3,1e-4)", "seed=range(0,2)"), 4),
        (("experiment=quickstart", "optimizer=mezo"), 3),
    ],
)
def test_the_plan_has_as_many_runs_as_there_will_be(
    command: Callable[..., tuple[int, str, str]],
    monkeypatch: pytest.MonkeyPatch,
    overrides: tuple[str, ...],
    runs: int,
) -> None:
    """Grids of overlays, narrowed by the command line, lists and ranges."""
    planned: list[int] = []
    monkeypatch.setattr(launch_log, "begin", lambda *given: planned.append(given[3]))
    composed: list[object] = []
    monkeypatch.setattr("zobench.launch.launch.launch", composed.append)
    multi = () if overrides[0].startswith("experiment") else ("-m",)
    assert command(*multi, *overrides)[0] == 0
    assert planned == [runs] and len(composed) == runs


def test_retries_are_counted_by_kind(compose: Callable[..., dict[str, Any]]) -> None:
    """After running out of memory, batches are halved if possible; bad data are not retried."""
    sizes = ("train.batch_size=4", "evaluation.batch_size=2", "retries.memory=9")
    settings = compose(*sizes)
    retries = RetryCounter(RunSettings.of(settings), 0)
    assert retries.next("killed") == "retry 1 of 1"
    assert [retries.next(kind) for kind in ("killed", "crash", "data", "disk")] == [None] * 4
    assert retries.next("memory") == "retry 1 of 9, batches in parts of half the size"
    assert retries.next("memory") is not None and retries.halved == 2
    assert retries.next("memory") is None and retries.halved == 2
    captured = RetryCounter(RunSettings.of(compose(*sizes, "optimizer.graph=true")), 0)
    assert captured.next("memory") is None


def test_only_a_sweep_leaves_its_notes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a single run, and of settings that were refused, nothing stays, not even the folder."""
    monkeypatch.setenv(launch_log.VARIABLE, "")
    for runs, ended, stays in ((1, "a", False), (2, None, False), (2, "a", True)):
        launch_log.begin(str(tmp_path / "runs"), "s", [], runs)
        launch_log.note({"run": ended, "status": "failed"})
        path = Path(os.environ[launch_log.VARIABLE])
        launch_log.end(path)
        assert path.exists() == (tmp_path / "runs").exists() == stays
