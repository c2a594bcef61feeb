"""What a process does to a folder that was taken from it meanwhile: nothing."""

import itertools
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import pytest

from zobench.run import fence as module
from zobench.run.durable import renewed, write_durably
from zobench.run.fence import UNFINISHED, Fence, fence_of, install_fence, remove_fence

FILES = {"result.json": b"old", "metrics.jsonl": b"1\n2\n", "best.partial": b"weights"}


class Gone(BaseException):
    """The process has ended."""


def wrote(path: Path, content: bytes) -> Callable[[BinaryIO], object]:
    del path
    return lambda file: file.write(content)


def _write(folder: Path) -> None:
    path = folder / "result.json"
    write_durably(path, wrote(path, b"late"))


def _write_anew(folder: Path) -> None:
    path = folder / "predictions"
    write_durably(path, wrote(path, b"late"))


def _renew(folder: Path) -> None:
    with renewed(folder / "metrics.jsonl", b"late") as file:
        file.write(b"later")


def _remove(folder: Path) -> None:
    fence_of(folder).remove(folder / "metrics.jsonl")


def _remove_folder(folder: Path) -> None:
    fence_of(folder).remove(folder / "model")


def _place_and_put(folder: Path) -> None:
    fence = fence_of(folder)
    place = fence.place(folder / "best.partial")
    place.write_bytes(b"late")
    fence.put(place, folder / "best.partial")


def contents(folder: Path) -> dict[str, bytes]:
    """All files, but for the folders of claims."""
    found = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*")}
    return {
        name: path.read_bytes()
        for name, path in found.items()
        if path.is_file() and UNFINISHED not in name
    }


@pytest.mark.parametrize(
    "act", [_write, _write_anew, _renew, _remove, _remove_folder, _place_and_put]
)
def test_whenever_it_is_taken_over_nothing_of_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, act: Callable[[Path], None]
) -> None:
    """The folder is lost right after the n-th look that found the lock in place, for every n.

    That is the moment that no look can close; what was written by then stays, and no more comes.
    """
    monkeypatch.setattr(module, "_GRACE", 0.0)
    for n in itertools.count(1):
        folder = tmp_path / f"lost-{n}"
        (folder / "model").mkdir(parents=True)
        (folder / "model" / "config.json").write_bytes(b"{}")
        for name, content in FILES.items():
            (folder / name).write_bytes(content)
        left = contents(folder)
        seen: list[int] = []

        def holds(
            seen: list[int] = seen, left: dict[str, bytes] = left, folder: Path = folder, n: int = n
        ) -> bool:
            seen.append(len(seen) + 1)
            if len(seen) == n:
                Fence(folder, lambda: True, aside=folder / f".new{UNFINISHED}").clean()
                left.clear()
                left.update(contents(folder))
            return len(seen) <= n

        def leave() -> None:
            raise Gone

        old = Fence(folder, holds, leave, folder / f".old{UNFINISHED}")
        install_fence(old)
        try:
            act(folder)
        except (Gone, FileNotFoundError):
            pass
        finally:
            remove_fence(old)
        if len(seen) < n:
            break  # it went well before it was lost
        assert contents(folder) == left, n
    assert n > 2 and contents(folder) != left


def test_late_appends_go_to_a_file_without_a_name(tmp_path: Path) -> None:
    """Of a file that grows the new owner makes another one, which has what was there by then."""
    path = tmp_path / "metrics.jsonl"
    with renewed(path, b"1\n") as old:
        old.write(b"2\n")
        with renewed(path, path.read_bytes()) as new:
            old.write(b"3\n")
            new.write(b"4\n")
    assert path.read_bytes() == b"1\n2\n4\n"


def test_between_two_looks_a_step_costs_no_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock decides; one that has jumped, as over a suspension, means a look at the disk."""
    looks = 0

    def holds() -> bool:
        nonlocal looks
        looks += 1
        return True

    fence = Fence(tmp_path, holds)
    now = time.clock_gettime(module._CLOCK)
    monkeypatch.setattr(module, "_now", lambda: now)
    for _ in range(1000):
        fence.check(within=1.0)
    assert looks == 1
    for jump in (1.1, 3600.0, -7200.0):
        now += jump
        fence.check(within=1.0)
    assert looks == 4
    fence.check()
    assert looks == 5


def test_a_lock_that_is_away_for_a_moment_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process that looks whether it is stale renames it: nothing is lost by that."""
    monkeypatch.setattr(module, "_POLL", 0.0)
    answers = iter([False, False, True])
    Fence(tmp_path, lambda: next(answers), leave=lambda: pytest.fail("left")).check()
    assert next(answers, None) is None
