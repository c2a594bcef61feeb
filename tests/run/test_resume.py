"""Runs that were killed go on, and end as if they had not been; `tests/faults` kills many more."""

import os
import random
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.run.attempts import Attempts
from zobench.run.folder import read_json
from zobench.run.nursery import Nursery
from zobench.run.stop import REQUEUE

Compose = Callable[..., dict[str, Any]]
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux runs are forked")


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    root = Path(__file__).resolve().parents[2]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")]))
        made = Nursery()
    yield made
    made.close()


@pytest.mark.parametrize(
    "overrides",
    [
        ("optimizer=loren", "train.select=last"),
        ("optimizer=adamw",),
        ("optimizer=agzo", "model.dtype=bfloat16"),
        ("optimizer=mezo_adam", "model.dtype=bfloat16", "checkpoint.beside_ledger=true"),
    ],
    ids=lambda overrides: overrides[0].partition("=")[2],
)
def test_killed_twice_and_finished(
    nursery: Nursery, compose: Compose, tmp_path: Path, overrides: tuple[str, ...]
) -> None:
    """Two kills at seeded instants, then the end: all bits are those of the run left alone."""
    run = Attempts(nursery, compose, tmp_path, *overrides)
    instants = random.Random(overrides[0]).sample(range(run.instants()), 2)
    for instant in instants:
        assert run.killed("killed", instant) in (-signal.SIGKILL, 0)
    assert run.attempt("killed") == 0
    run.check("killed")


@pytest.mark.parametrize("optimizer", ["curvzo", "adamw"])
def test_asked_to_stop_it_saves_and_goes_on(
    nursery: Nursery, compose: Compose, tmp_path: Path, optimizer: str
) -> None:
    """SIGTERM and SIGUSR1 end it with status 75 and no failure; no step is taken twice."""
    run = Attempts(nursery, compose, tmp_path, f"optimizer={optimizer}", "checkpoint.steps=null")
    assert run.attempt("whole") == 0
    for by, instant in (("SIGTERM", 9), ("SIGUSR1", 21)):
        assert run.killed("asked", instant, by) == REQUEUE
        folder = run.folder("asked")
        assert not folder.failure.exists() and not folder.result.exists()
        assert f"stopped by {by}" in folder.log.read_text()
    assert run.attempt("asked") == 0
    assert "continued" in run.folder("asked").log.read_text()
    run.check("asked")


def test_a_kill_after_the_result_does_not_repeat_the_run(
    nursery: Nursery, compose: Compose, tmp_path: Path
) -> None:
    """Between result.json and the logger's end: the next attempt only tells the logger."""
    run = Attempts(nursery, compose, tmp_path, "optimizer=mezo")
    instants = run.instants()
    # the last instants: the logger's end, and before and after the removal of the mark
    assert run.killed("late", instants - 3) == -signal.SIGKILL
    folder = run.folder("late")
    assert folder.mirroring.exists()
    written = folder.result.stat().st_mtime_ns
    log = tmp_path / "heard"
    told = {"_target_": "tests.run.killer.Told", "path": str(log)}
    assert run.attempt("late", logger=told) == 0
    assert folder.result.stat().st_mtime_ns == written
    assert log.read_text().split() == ["begin", "end"]
    assert not folder.mirroring.exists()
    assert run.attempt("late", logger=told) == 0
    assert log.read_text().split() == ["begin", "end"], "heard twice"
    run.check("late")


def test_a_damaged_checkpoint_is_named_and_the_one_before_used(
    nursery: Nursery, compose: Compose, tmp_path: Path
) -> None:
    """Of AdamW's two the newer loses a byte: the log says so, and the bits are the same."""
    run = Attempts(nursery, compose, tmp_path, "optimizer=adamw")
    instants = run.instants()
    assert run.killed("hurt", instants * 3 // 4) == -signal.SIGKILL
    older, newer = sorted(run.folder("hurt").path.glob("checkpoint-*.pt"))
    content = bytearray(newer.read_bytes())
    content[len(content) // 2] ^= 1
    newer.write_bytes(content)
    assert run.attempt("hurt") == 0
    log = run.folder("hurt").log.read_text()
    assert f"{newer.name} is damaged" in log
    assert f"step {int(older.name.split('-')[1])} from a checkpoint" in log
    run.check("hurt")


def test_other_base_weights_are_refused(nursery: Nursery, compose: Compose, tmp_path: Path) -> None:
    """A run does not go on from weights that it did not begin with; the key is named."""
    run = Attempts(nursery, compose, tmp_path, "optimizer=mezo")
    assert run.killed("moved", run.instants() // 2) == -signal.SIGKILL
    folder = run.folder("moved")
    meta = read_json(folder.meta)
    folder.meta.write_text(folder.meta.read_text().replace(meta["base"], "0" * 64))
    assert run.attempt("moved") == 1
    reason = read_json(folder.failure)["reason"]
    assert reason.startswith("model: its weights before training are not those")
