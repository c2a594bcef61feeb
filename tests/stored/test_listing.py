"""`zobench list`: suites with runs by status, size and age; the runs of one suite."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.stored.suites import run
from zobench.launch.run_lock import claimed
from zobench.stored.folders import measured, shown_size

Command = Callable[..., tuple[int, str, str]]


def test_suites_are_listed_with_status_size_and_age(command: Command, tmp_path: Path) -> None:
    """Hidden folders and loose files are none; the age is that of the last file that changed."""
    root = tmp_path / "runs"
    done = run(root / "a", "x-s0-00000001", result={"status": "done"})
    (done / "best.safetensors").write_bytes(bytes(3_000_000))
    run(root / "a", "x-s0-00000002", result={"status": "diverged"})
    run(root / "a", "x-s0-00000003", failure={"kind": "data", "reason": "x"})
    run(root / "b", "x-s0-00000004")
    run(root / ".hidden", "x-s0-00000005")
    (root / "note.txt").write_text("x")
    old = time.time() - 3 * 86_400
    for place in (root / "b").rglob("*"):
        os.utime(place, (old, old))
    with claimed(run(root / "a", "x-s0-00000006")):
        status, out, err = command("list")
        assert status == 0 and not err
        head, *lines = out.splitlines()
        assert head.split() == ["suite", "runs", "size", "changed"]
        assert [line.split()[:2] for line in lines] == [["a", "4"], ["b", "1"]]
        assert "1 done, 1 diverged, 1 running, 1 failed  3." in lines[0] and " MB " in lines[0]
        assert "1 stopped" in lines[1] and "3 days ago" in lines[1]
        _, out, _ = command("list", "a")
    found = {line.split()[0]: line.split()[1] for line in out.splitlines()[1:]}
    assert found == {
        "x-s0-00000001": "done",
        "x-s0-00000002": "diverged",
        "x-s0-00000003": "failed",
        "x-s0-00000006": "running",
    }


def test_a_damaged_result_is_named(command: Command, tmp_path: Path) -> None:
    """It does not stop the listing."""
    (run(tmp_path / "runs" / "a", "x") / "result.json").write_text("{ half")
    assert "1 damaged" in command("list")[1]


def test_what_is_not_there_is_an_error_of_one_line(command: Command, tmp_path: Path) -> None:
    """The folder of runs, or the suite."""
    status, _, err = command("list")
    assert status == 1 and "no folder of runs" in err and len(err.splitlines()) == 1
    run(tmp_path / "runs" / "a", "x")
    status, _, err = command("list", "b")
    assert status == 1 and "no suite 'b'" in err and "there are a" in err


@pytest.mark.parametrize(
    ("size", "shown"),
    [(12, "12 B"), (9_949, "9.9 kB"), (14_000, "14 kB"), (999_600, "1.0 MB"), (3.2e9, "3.2 GB")],
)
def test_sizes_have_two_digits_or_more(size: float, shown: str) -> None:
    assert shown_size(size) == shown


def test_size_is_that_on_disk(tmp_path: Path) -> None:
    """A file with a hole takes what is written; a link takes nothing of its target."""
    with (tmp_path / "hole").open("wb") as file:
        file.truncate(10**9)
    target = tmp_path.parent / f"{tmp_path.name}-target"
    target.write_bytes(bytes(1_000_000))
    (tmp_path / "link").symlink_to(target)
    assert measured(tmp_path)[0] < 500_000


def test_listing_does_not_import_torch() -> None:
    """So that it answers at once."""
    code = (
        "import sys, zobench.stored.listing, zobench.stored.removal; print('torch' in sys.modules)"
    )
    made = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert made.stdout.strip() == "False"
