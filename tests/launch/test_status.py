"""`zobench status`: every run of a suite in its state, those that are waiting, what is damaged."""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from zobench.launch import launch_log
from zobench.launch.run_lock import LOCK, claimed
from zobench.run.folder import RunFolder, write_json

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def suite(compose: Callable[..., dict[str, Any]], tmp_path: Path) -> Callable[..., RunFolder]:
    """`suite("a", result={...})`: a run folder of suite s with these files."""
    settings = compose("budget.steps=40")

    def folder_of(name: str, **files: Any) -> RunFolder:
        folder = RunFolder(tmp_path / "runs" / "s" / name)
        folder.begin(settings, {"id": name})
        for key, value in files.items():
            write_json(getattr(folder, key), value)
        row = {"step": 20, "train/loss": 1.0}
        folder.metrics.write_text(json.dumps(row) + "\n")
        return folder

    return folder_of


def test_every_state_is_shown(
    suite: Callable[..., RunFolder], command: Command, tmp_path: Path
) -> None:
    """Done ones are counted; of the others each is named, with what there is to say."""
    numbers = {"best_step": 0, "test": {}}
    suite("a", result={"status": "done", "reason": None, **numbers})
    suite("b", result={"status": "diverged", "reason": "the loss is nan at step 3", **numbers})
    suite("c", failure={"kind": "memory", "reason": "CUDA out of memory"})
    suite("d")
    suite("e").result.write_text("{ half")
    notes = tmp_path / "runs" / launch_log.FOLDER / "now.jsonl"
    notes.parent.mkdir()
    plan = {"time": time.time() - 60, "suite": "s", "command": ["x"], "runs": 9}
    rows = [plan | {"pid": os.getpid(), "host": os.uname().nodename}]
    rows += [{"time": time.time(), "run": name, "status": "done"} for name in "abcdef"]
    notes.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with claimed(suite("f").path):
        status, out, err = command("status", "s")
    assert status == 0 and not err
    first, *rest = out.splitlines()
    assert first == (
        "s: 9 runs: 1 done, 1 diverged, 1 running, 1 failed, 1 damaged, 1 stopped, 3 waiting;"
        " about 30 s left"
    )
    assert "  diverged: b: the loss is nan at step 3" in rest
    assert f"  running: f: step 20/40; process {os.getpid()} on " in out
    assert "  failed: c: memory: CUDA out of memory" in rest and "c/stderr.log" in out
    assert "  stopped: d: step 20/40; the next launch resumes it" in rest
    assert "e/result.json: damaged" in out


def test_a_run_whose_owner_is_gone_is_stopped(
    suite: Callable[..., RunFolder], command: Command
) -> None:
    """The lock that a killed process has left does not make it running."""
    folder = suite("a")
    with claimed(folder.path):
        text = (folder.path / LOCK).read_text()
    gone = text.replace(f"{os.getpid()}", "4194301")
    (folder.path / LOCK).write_text(gone)
    _, out, _ = command("status", "s")
    assert out.startswith("s: 1 runs: 1 stopped\n")


def test_a_missing_suite_is_an_error(command: Command) -> None:
    """With where it was looked for."""
    status, _, err = command("status", "nothing")
    assert status == 1 and "no suite 'nothing' in " in err and len(err.splitlines()) == 1


@pytest.mark.parametrize("name", ["result.json", "config.yaml"])
def test_a_damaged_file_is_named_at_the_next_launch(
    command: Command, tmp_path: Path, name: str
) -> None:
    """The run fails with the file's name; it is neither restarted nor skipped."""
    options = ("budget.steps=2", "logger=none", "task=quadratic_columns", "threads=1")
    assert command(*options)[0] == 0
    [folder] = (tmp_path / "runs" / "scratch").iterdir()
    if name != "result.json":
        (folder / "result.json").unlink()
    (folder / name).write_bytes(b"\xff{ half")
    status, _, err = command(*options)
    assert status == 1 and f"{name}: damaged" in err and "Traceback" not in err
    assert (folder / name).read_bytes() == b"\xff{ half"
