"""Failures have a kind, one line, and the end of the log."""

import errno
import json
import os
from pathlib import Path

import pytest
import torch

from zobench.errors import UserError
from zobench.launch import process
from zobench.launch.job import Job, described, ended_by, tail_of
from zobench.launch.process import attempt, note_begin
from zobench.run.checkpoint import _CRCFile
from zobench.run.folder import RunFolder, read_json
from zobench.settings import Budget, Evaluation, RunSettings, Train

CUDA = "CUDA error: device-side assert triggered\nCUDA kernel errors might be reported later"
CASES = {
    "data": (UserError("task.x=3: no"), "task.x=3: no"),
    "memory": (torch.OutOfMemoryError("CUDA out of memory. Tried.\nIncluding much"), "CUDA out of"),
    "crash": (KeyError("x"), "KeyError: 'x'"),
    "disk": (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "here"), "the disk is full: here"),
    "device": (RuntimeError(CUDA), "CUDA error: device-side assert triggered"),
}

SETTINGS = RunSettings({"seed": 0}, {}, {}, {}, {}, 0, Budget(), Train(), Evaluation())


def failing(error: BaseException) -> object:
    def fail(*_: object) -> None:
        raise error

    return fail


@pytest.mark.parametrize("kind", CASES)
def test_a_failure_has_a_kind_and_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Faults of the user, of the machine and of the code have different kinds."""
    error, begins = CASES[kind]
    monkeypatch.setattr(process, "run", failing(error))
    folder = RunFolder(tmp_path)
    [ending] = attempt([Job(folder, SETTINGS, {})])
    assert ending.status == "failed"
    failure = read_json(folder.failure)
    assert failure["kind"] == ending.kind == kind
    assert failure["reason"] == ending.reason
    assert failure["reason"].startswith(begins)
    assert "\n" not in failure["reason"] and "Including" not in failure["reason"]
    assert failure["tail"] == folder.log.read_text().splitlines()[-20:]
    assert ("Traceback" in folder.log.read_text()) == (kind != "data")


def test_a_full_disk_is_named_in_all_errors() -> None:
    """The system's error, with its file; torch's and safetensors', which wrap it in their own."""
    with pytest.raises(OSError) as full, Path("/dev/full").open("wb", buffering=0) as file:
        file.write(b"x")
    assert described(full.value)[0] == "disk"
    summed = _CRCFile()
    with Path("/dev/full").open("wb", buffering=0) as file, pytest.raises(Exception) as wrapped:
        summed.file = file
        torch.save({"x": torch.zeros(10)}, summed)  # type: ignore[arg-type]
    assert described(wrapped.value)[0] == "disk"
    rust = Exception("Error while serializing: I/O error: No space left on device (os error 28)")
    assert described(rust) == ("disk", "the disk is full")
    try:
        try:
            raise OSError(errno.EROFS, "x", "there")
        except OSError as error:
            raise RuntimeError("cannot save") from error
    except RuntimeError as error:
        assert described(error) == ("disk", "the file system is read-only: there")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    """Before anything of the run has begun."""
    tmp_path.chmod(0o500)
    [ending] = attempt([Job(RunFolder(tmp_path / "run"), SETTINGS, {})])
    tmp_path.chmod(0o700)
    assert (ending.kind, ending.status) == ("disk", "failed")
    assert str(tmp_path / "run") in ending.reason


def test_a_place_that_is_no_folder_is_named(tmp_path: Path) -> None:
    """Also to root: the run's folder is a file."""
    (tmp_path / "run").write_text("")
    [ending] = attempt([Job(RunFolder(tmp_path / "run"), SETTINGS, {})])
    assert ending.status == "failed" and str(tmp_path / "run") in ending.reason


def test_attempts_are_remembered_with_the_end_of_their_logs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also one that was killed, which could not say so, and of which there is a beginning."""
    folder = RunFolder(tmp_path)
    note_begin([folder])
    monkeypatch.setattr(process, "run", failing(KeyError("x")))
    attempt([Job(folder, SETTINGS, {})])
    killed, begun, failed = (json.loads(x) for x in folder.attempts.read_text().splitlines())
    assert killed["event"] == begun["event"] == "begun" and killed["pid"] == os.getpid()
    assert failed["event"] == "failed" and failed["kind"] == "crash"
    assert failed["tail"][-1] == "KeyError: 'x'"


def test_the_end_of_a_long_log_is_kept(tmp_path: Path) -> None:
    """Twenty lines, whatever comes before."""
    log = tmp_path / "log"
    log.write_text("".join(f"line {n}\n" for n in range(5000)))
    assert tail_of(log) == [f"line {n}" for n in range(4980, 5000)]
    assert tail_of(tmp_path / "none") == []


def test_killed_for_memory_differs_from_killed() -> None:
    """The system counts its kills."""
    assert ended_by(9, memory=True)[0] == "memory"
    assert ended_by(9, memory=False) == ("killed", "killed by signal 9")
