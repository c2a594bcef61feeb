"""The view of runs that go at the same time on a terminal."""

import io
import json
import os
import pty
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from zobench.live import drawn, reached_by, short


def folder_of(
    root: Path, name: str, steps: int | None, *rows: dict[str, Any], rest: str = ""
) -> Path:
    folder = root / "s" / name
    folder.mkdir(parents=True)
    shown = "null" if steps is None else steps
    (folder / "config.yaml").write_text(f"budget: {{steps: {shown}}}\n")
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "metrics.jsonl").write_text(lines + rest)
    return folder


def lines_of(rows: list[dict[str, Any]], root: Path, now: float, width: int = 140) -> list[str]:
    console = Console(file=io.StringIO(), width=width)
    console.print(drawn(rows, root, now))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().rstrip().splitlines()


def test_a_line_for_each_running_run_and_the_whole(tmp_path: Path) -> None:
    """Step, losses, and time left from the pace so far; the last line counts the sweep."""
    folder_of(tmp_path, "a", 200, {"step": 20, "train/loss": 1.5}, {"step": 20, "dev/loss": 1.25})
    folder_of(tmp_path, "b", None, {"step": 7, "train/loss": 2.0})
    plan: dict[str, Any] = {"time": 0.0, "suite": "s", "command": [], "runs": 9}
    rows = [plan, *({"time": 10.0, "run": name, "status": "begun"} for name in "abc")]
    rows += [
        {"time": 8.0, "run": "d", "status": "begun"},
        {"time": 9, "run": "d", "status": "done"},
    ]
    first, second, third, last = lines_of(rows, tmp_path, 20.0)
    assert first.startswith("a ") and "20/200 train/loss 1.5, dev/loss 1.25" in first
    assert first.endswith(" 90 s left") or first.endswith(" 2 min left")
    assert second.startswith("b ") and "step 7" in second and "left" not in second
    assert third.split() == ["c", "starts"]
    assert last.startswith("9 runs: 1 done, 3 running, 5 waiting; about ")


def test_a_narrow_terminal_shows_what_differs_and_the_time_left(tmp_path: Path) -> None:
    """Names lose what they share; where there is little width, losses are cut."""
    names = [f"synthetic_reviews-tiny-full-{row}-lr=1e-{n}-s0-{n}{'a' * 7}"
             for row in ("mezo", "conmezo") for n in (4, 5)]  # fmt: skip
    for name in names:
        values = {"step": 20, "train/loss": 1.5, "dev/loss": 1.25, "dev/accuracy": 0.5}
        folder_of(tmp_path, name, 200, values)
    plan: dict[str, Any] = {"time": 0.0, "suite": "s", "command": [], "runs": 4}
    rows = [plan, *({"time": 10.0, "run": name, "status": "begun"} for name in names)]
    *shown, _ = lines_of(rows, tmp_path, 20.0, width=60)
    begins = ["mezo-lr=1e-4-s0", "mezo-lr=1e-5-s0", "conmezo-lr=1e-4-s0", "conmezo-lr=1e-5-s0"]
    assert [line.split()[0] for line in shown] == begins
    assert all("20/200" in line and line.rstrip().endswith("2 min left") for line in shown)
    assert all(" train/" in line and "…" in line for line in shown)


@pytest.mark.parametrize(
    ("names", "shown"),
    [
        (["t-m-s0-11111111"], ["t-m-s0"]),
        (["t-m-s0-11111111", "t-m-s1-22222222"], ["s0", "s1"]),
        (["t-m-s0-11111111", "t-m-s0-12222222"], ["11111111", "12222222"]),
        (["t-lr=1e-4-s0-11111111", "t-lr=1e-5-s0-22222222"], ["lr=1e-4-s0", "lr=1e-5-s0"]),
        (["t-a=-1-s0-11111111", "t-a=-2-s0-22222222"], ["a=-1-s0", "a=-2-s0"]),
        (["a", "b"], ["a", "b"]),
    ],
)
def test_short_names_are_told_apart(names: list[str], shown: list[str]) -> None:
    """The id is left out unless it alone differs."""
    assert list(short(names).values()) == shown


def test_many_runs_do_not_fill_the_screen(tmp_path: Path) -> None:
    """Twenty are shown, the others are counted."""
    plan: dict[str, Any] = {"time": 0.0, "suite": "s", "command": [], "runs": 64}
    rows = [plan, *({"time": 1.0, "run": f"r{i}", "status": "begun"} for i in range(64))]
    shown = lines_of(rows, tmp_path, 2.0)
    assert len(shown) == 22 and shown[20] == "and 44 more"


def test_half_written_and_damaged_files_are_tolerated(tmp_path: Path) -> None:
    """The step is that of the last complete row; without one the run is starting."""
    folder = folder_of(tmp_path, "a", 9, {"step": 3, "train/loss": 1.0}, rest='{"step": 4, "tr')
    found = reached_by(folder)
    assert found is not None and (found.step, found.steps) == (3, 9)
    many = [{"step": n, "train/loss": float(n)} for n in range(1000)]
    long = reached_by(folder_of(tmp_path, "b", 1000, *many))
    assert long is not None and long.step == 999 and long.values == {"train/loss": 999.0}
    damaged = folder_of(tmp_path, "c", 9, {"step": 3, "train/loss": 1.0})
    (damaged / "config.yaml").write_text("{ half")
    found = reached_by(damaged)
    assert found is not None and found.steps is None
    assert reached_by(tmp_path / "s" / "d") is None


@pytest.mark.smoke
@pytest.mark.skipif(sys.platform != "linux", reason="a terminal as Linux has it")
def test_a_parallel_sweep_on_a_terminal(tmp_path: Path) -> None:
    """Two runs at once have a line each in one view; what the runs print stays above it."""
    ours, theirs = pty.openpty()
    root = Path(__file__).resolve().parents[1]
    words = ["-m", "hydra/launcher=local", "hydra.launcher.n_jobs=2", "seed=0,1", "suite=s"]
    words += ["logger=none", "threads=1", "budget.steps=120", "train.log_every=5"]
    process = subprocess.Popen(
        [sys.executable, "-m", "zobench", *words],
        env={
            **{**os.environ, "PYTHONPATH": str(root), "TERM": "xterm", "COLUMNS": "160"},
            "ZOBENCH_RUNS": str(tmp_path / "runs"),
        },
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    seen, begin = b"", time.perf_counter()
    while time.perf_counter() - begin < 600:
        try:
            part = os.read(ours, 1 << 16)
        except OSError:  # the terminal has no writer any more
            break
        seen += part
    os.close(ours)
    assert process.wait(60) == 0
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", seen.decode()).replace("\r", "\n")
    frames = [line for line in text.splitlines() if re.search(r"^s[01] .*\d+/120", line)]
    assert {line[:2] for line in frames} == {"s0", "s1"}, text
    assert "2 runs: 2 running" in text
    assert text.rstrip().endswith("2 runs: 2 done")
    assert len(re.findall(r"-s[01]-\w{8}: done, test accuracy", text)) == 2
    assert "step 100/120" not in text and "Traceback" not in text
