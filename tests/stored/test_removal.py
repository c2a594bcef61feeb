"""`zobench rm`: what it removes, what it refuses, and that it asks."""

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.stored.suites import run
from zobench.launch import launch_log
from zobench.launch.run_lock import claimed

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Suites a (two runs) and b (one)."""
    root = tmp_path / "runs"
    run(root / "a", "x-s0-00000001", result={"status": "done"})
    run(root / "a", "x-s1-00000002")
    run(root / "b", "x-s0-00000001")
    return root


def left(root: Path) -> set[str]:
    return {path.parent.relative_to(root).as_posix() for path in root.rglob("config.yaml")}


def log_of(root: Path, suite: str, pid: int) -> Path:
    folder = root / launch_log.FOLDER
    folder.mkdir(exist_ok=True)
    plan = {"time": time.time(), "suite": suite, "command": [], "runs": 9, "pid": pid}
    path = folder / f"{suite}.jsonl"
    path.write_text(json.dumps(plan | {"host": os.uname().nodename}) + "\n")
    return path


def test_a_suite_goes_with_its_logs(command: Command, root: Path) -> None:
    """Other suites and their logs stay, and nothing is left aside."""
    mine, other = log_of(root, "a", 4194301), log_of(root, "b", 4194301)
    status, out, _ = command("rm", "a", "--yes")
    assert status == 0 and "removed a: 2 runs, " in out
    assert left(root) == {"b/x-s0-00000001"} and not (root / "a").exists()
    assert not mine.exists() and other.exists()
    assert not list(root.glob(".removed-*"))


@pytest.mark.parametrize("name", ["a/x-s1-00000002", "a/00000002", "{root}/a/x-s1-00000002"])
def test_a_run_is_named_by_folder_id_or_path(command: Command, root: Path, name: str) -> None:
    """Only this run goes; the last one of a suite takes the suite's empty folder with it."""
    assert command("rm", "--yes", name.format(root=root))[0] == 0
    assert left(root) == {"a/x-s0-00000001", "b/x-s0-00000001"}
    assert command("rm", "--yes", "a/00000001")[0] == 0
    assert not (root / "a").exists()


@pytest.mark.parametrize(
    "name", ["c", "a/nothing", "..", ".", "../runs", "/", "a/../b", ".launches", "a/x", ""]
)
def test_nothing_else_is_removed(command: Command, root: Path, name: str) -> None:
    """Neither folders outside, nor what is no suite or run, nor by a name that fits none."""
    before = left(root)
    status, _, err = command("rm", "--yes", name)
    assert status == 1 and len(err.splitlines()) == 1 and "error: " in err
    assert left(root) == before


def test_a_folder_without_runs_stays(command: Command, root: Path) -> None:
    """It may be a folder of suites, such as that of scale=lab."""
    run(root / "lab" / "suite", "x-s0-00000001")
    status, _, err = command("rm", "--yes", "lab")
    assert status == 1 and "no runs in it" in err and (root / "lab").exists()


def test_running_runs_are_refused(command: Command, root: Path) -> None:
    """One that a process has claimed, and a suite that a living command is launching; all stays."""
    before = left(root)
    with claimed(root / "a" / "x-s1-00000002"):
        status, _, err = command("rm", "--yes", "b", "a")
    assert status == 1 and "x-s1-00000002: is running" in err and left(root) == before
    log_of(root, "a", os.getpid())
    status, _, err = command("rm", "--yes", "a")
    assert status == 1 and "is launching its runs" in err and left(root) == before


def test_it_asks_on_a_terminal_only(
    command: Command, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without --yes and a terminal it stops; every answer but yes keeps the runs."""
    status, _, err = command("rm", "a")
    assert status == 1 and "pass --yes" in err and (root / "a").exists()
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    asked: list[str] = []

    def say(answer: str) -> Callable[[str], str]:
        return lambda question: asked.append(question) or answer  # type: ignore[func-returns-value]

    monkeypatch.setattr("builtins.input", say(""))
    assert command("rm", "a")[0] == 1 and (root / "a").exists()
    assert asked[0].startswith("remove a: 2 runs, ")
    monkeypatch.setattr("builtins.input", say("y"))
    assert command("rm", "a")[0] == 0 and not (root / "a").exists()


def test_what_a_killed_removal_left_goes_with_the_next(command: Command, root: Path) -> None:
    """It is no suite meanwhile."""
    run(root / ".removed-abc" / "c", "x")
    assert "c" not in command("list")[1].split()
    command("rm", "--yes", "b")
    assert not (root / ".removed-abc").exists()
