"""One process at a run: who has it, what becomes of a lock whose owner is gone."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.launch.rivals import Contested, Rivals
from zobench.launch import run_lock
from zobench.launch.run_lock import LOCK, LOST, Busy, claimed, owner_of

HOLD = """
import sys, time
from pathlib import Path
from zobench.launch import run_lock
run_lock.LEASE, run_lock._HEARTBEAT = map(float, sys.argv[2:4])
with run_lock.claimed(Path(sys.argv[1])):
    print("mine", flush=True)
    time.sleep(100)
"""


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """`holder()`: another process, which has claimed the folder."""
    started: list[subprocess.Popen[str]] = []

    def start(lease: float = run_lock.LEASE, heartbeat: float = 15.0) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", HOLD, str(tmp_path), str(lease), str(heartbeat)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "mine\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def from_elsewhere(folder: Path) -> None:
    """Let the lock be that of a process of another machine."""
    lines = (folder / LOCK).read_text().splitlines()
    host = next(line for line in lines if run_lock.socket.gethostname() in line)
    named = [line.replace(run_lock.socket.gethostname(), "far-away") for line in lines]
    assert host
    (folder / LOCK).write_text("\n".join(named) + "\n")


def test_a_second_process_learns_the_owner_of_the_run(
    holder: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    """Busy names process and machine, and comes soon; the lock stays its owner's."""
    process = holder()
    begun = time.monotonic()
    with pytest.raises(Busy, match=f"process {process.pid} on "), claimed(tmp_path):
        pass
    assert time.monotonic() - begun < 10
    owner = owner_of(tmp_path)
    assert owner is not None and owner.pid == process.pid and owner.here and owner.alive


def test_the_lock_of_a_dead_process_is_taken_over_at_once(
    holder: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    """SIGKILL leaves the file; it is no one's, and the next process has the run."""
    process = holder()
    process.send_signal(signal.SIGKILL)
    process.wait()
    owner = owner_of(tmp_path)
    assert owner is not None and not owner.alive
    with claimed(tmp_path):
        mine = owner_of(tmp_path)
        assert mine is not None and mine.pid == os.getpid()
    assert owner_of(tmp_path) is None and not list(tmp_path.iterdir())


@pytest.mark.parametrize("content", ["", "12"])
def test_the_lock_of_a_process_that_was_killed_while_it_wrote_it_is_taken_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str
) -> None:
    """No name is in it, and none comes within seconds."""
    monkeypatch.setattr(run_lock, "_NAMELESS", 0.3)
    (tmp_path / LOCK).write_text(content)
    with claimed(tmp_path):
        assert os.getpid() == getattr(owner_of(tmp_path), "pid", None)
    assert not list(tmp_path.iterdir())


def test_a_lock_that_is_taken_while_a_nameless_one_is_removed_stays(
    holder: Callable[..., subprocess.Popen[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who has just found it nameless puts it back."""
    process = holder()
    found = iter([None])
    named = run_lock.owner_of
    monkeypatch.setattr(run_lock, "owner_of", lambda folder: next(found, named(folder)))
    monkeypatch.setattr(run_lock, "_NAMELESS", 0.0)
    read = Path.read_bytes
    seen = iter([b""])
    monkeypatch.setattr(Path, "read_bytes", lambda path: next(seen, read(path)))
    with pytest.raises(Busy, match=f"process {process.pid} on "), claimed(tmp_path):
        pass
    assert [path.name for path in tmp_path.iterdir()] == [LOCK]


def test_another_machines_lock_is_respected_while_it_has_a_heartbeat(
    holder: Callable[..., subprocess.Popen[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its process cannot be looked for here: the heartbeat says whether it lives."""
    monkeypatch.setattr(run_lock, "LEASE", 1.0)
    monkeypatch.setattr(run_lock, "_HEARTBEAT", 0.3)
    process = holder(1.0, 0.3)
    process.send_signal(signal.SIGKILL)
    process.wait()
    from_elsewhere(tmp_path)
    owner = owner_of(tmp_path)
    assert owner is not None and owner.host == "far-away" and owner.alive
    with pytest.raises(Busy, match="on far-away"), claimed(tmp_path):
        pass
    old = time.time() - 10
    os.utime(tmp_path / LOCK, (old, old))
    with claimed(tmp_path):
        assert os.getpid() == getattr(owner_of(tmp_path), "pid", None)


def test_who_loses_its_claim_ends(
    holder: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    """A process that stood still until another took its lock over writes nothing any more."""
    process = holder(1.0, 0.2)
    (tmp_path / LOCK).unlink()
    (tmp_path / LOCK).write_text("another's\n")
    assert process.wait(timeout=30) == LOST


@pytest.mark.smoke
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux runs are forked")
def test_a_paused_owner_that_continues_writes_nothing(
    compose: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    """It stands still in a step until another is in a later one; the run's bits are as undisturbed.

    tests/faults/test_paused.py has this at many instants.
    """
    with Rivals() as rivals:
        run = Contested(rivals, compose, tmp_path, "optimizer=mezo")
        run.count()
        assert run.contest(run.instants // 3, run.instants // 2) == (LOST, 0)
    run.check(f"at-{run.instants // 3}-{run.instants // 2}")
