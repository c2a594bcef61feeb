"""Forked runs: what a run in a process of its own must be."""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.run.attempts import status_of as exit_status_of
from zobench.launch.job import Job
from zobench.launch.process import ForkServer, close_server, run_jobs
from zobench.run.folder import HALVED, RunFolder, read_json, write_json
from zobench.run.runner import run

Compose = Callable[..., dict[str, Any]]
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux runs are forked")


@pytest.fixture
def prepare(compose: Compose, tmp_path: Path) -> Callable[..., RunFolder]:
    """A run folder that waits to be carried out, some of its settings replaced."""

    def folder_of(at: str, **replaced: Any) -> RunFolder:
        sizes = ("task.sizes.train=24", "task.sizes.dev=16", "task.sizes.test=16")
        settings = compose("logger=none", "budget.steps=4", "train.batch_size=4", *sizes)
        folder = RunFolder(tmp_path / at)
        choices = {"task": "t", "model": "tiny", "tuning": "full", "optimizer": "o"}
        meta = {"id": "0" * 8, "name": at, "suite": "s", "seed": 0, "choices": choices}
        folder.begin(settings | replaced, meta)
        return folder

    return folder_of


def status_of(server: ForkServer, folder: RunFolder) -> int | None:
    return exit_status_of(server.run(Job.begun(folder.path)))


def test_a_forked_run_has_the_bits_of_any_other(
    server: ForkServer, prepare: Callable[..., RunFolder]
) -> None:
    """Two runs from one server and one in this process leave the same ledger and test loss."""
    folders = [prepare(name) for name in ("a", "b", "c")]
    assert [status_of(server, folder) for folder in folders[:2]] == [0, 0]
    run(folders[2])
    assert len({folder.ledger.read_bytes() for folder in folders}) == 1
    assert len({str(read_json(folder.result)["test"]) for folder in folders}) == 1


def test_a_crash_stays_with_its_run(server: ForkServer, prepare: Callable[..., RunFolder]) -> None:
    """An aborted run is reported with its signal, one with a bad target fails; others continue."""
    aborting = prepare("aborting", logger={"_target_": "tests.run.killer.abort"})
    assert status_of(server, aborting) == -signal.SIGABRT
    assert "Fatal Python error: Aborted" in aborting.log.read_text()
    broken = prepare("broken", logger={"_target_": "no_such_module.Logger"})
    assert status_of(server, broken) == 1
    assert "no_such_module" in read_json(broken.failure)["reason"]
    assert status_of(server, prepare("sound")) == 0


def test_a_nursery_that_was_killed_is_replaced(
    monkeypatch: pytest.MonkeyPatch, prepare: Callable[..., RunFolder]
) -> None:
    """The requested run is reported as killed, and the next one runs."""
    killed = ForkServer()
    os.kill(killed._process.pid, signal.SIGKILL)
    killed._process.wait()
    monkeypatch.setattr("zobench.launch.process._server", killed)
    [first] = run_jobs(Job.begun(prepare("first").path))
    assert (first.status, first.kind) == ("failed", "killed")
    [second] = run_jobs(Job.begun(prepare("second").path))
    assert second.status == "done"
    assert close_server() == 0


def test_a_folder_that_is_launched_again_keeps_its_own_settings(
    prepare: Callable[..., RunFolder],
) -> None:
    """Halved batches are of the attempts: config.yaml and what is there of the run stay."""
    folder = prepare("halved")
    write_json(folder.meta, {**read_json(folder.meta), HALVED: 1})
    folder.ledger.write_bytes(b"steps")
    before = folder.config.read_bytes()
    job = Job.begun(folder.path)
    job.begin()
    assert folder.config.read_bytes() == before and folder.ledger.read_bytes() == b"steps"
    assert job.settings.train.micro_batch_size is None
    assert folder.run_settings().train.micro_batch_size == 2
