"""Killed runs resume, and end with the bits of uninterrupted ones; see also `tests/faults`."""

import functools
import random
import re
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.run.attempts import Attempts
from zobench.launch.process import ForkServer
from zobench.run.folder import read_json, write_json
from zobench.run.stop import REQUEUE
from zobench.zo.ledger import Ledger, recover

Compose = Callable[..., dict[str, Any]]
NEVER = {"steps": None, "minutes": None, "beside_ledger": False}
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux runs are forked")


@pytest.fixture(scope="module")
def run(
    server: ForkServer, compose: Compose, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Attempts]:
    """`run("adamw")`: attempts at a run, of which `whole` was left alone."""

    @functools.cache
    def attempts(optimizer: str) -> Attempts:
        overrides = f"optimizer={optimizer}".split()
        made = Attempts(server, compose, tmp_path_factory.mktemp("runs"), *overrides)
        made.count()
        return made

    return attempts


@pytest.mark.parametrize("optimizer", ["loren", "adamw", "lisa optimizer.every=3"])
def test_killed_and_finished(run: Callable[[str], Attempts], optimizer: str) -> None:
    """A kill at a seeded instant, then the end: all bits are those of the run left alone."""
    attempts = run(optimizer)
    attempts.survive([random.Random(optimizer).randrange(attempts.instants)])


@pytest.mark.parametrize(("optimizer", "by"), [("loren", "SIGTERM"), ("adamw", "SIGUSR1")])
def test_a_stopped_run_saves_and_resumes(
    run: Callable[[str], Attempts], optimizer: str, by: str
) -> None:
    """It ends with status 75 and is no failure; what it has done by then is not done again."""
    attempts = run(optimizer)
    assert attempts.killed("asked", 20, by, checkpoint=NEVER) == REQUEUE
    folder = attempts.folder("asked")
    assert not folder.failure.exists() and not folder.result.exists()
    assert f"stopped by {by}" in folder.log.read_text()
    assert attempts.attempt("asked", checkpoint=NEVER) == 0
    assert re.search("resumed: step [1-9]|, [1-9] steps from the ledger", folder.log.read_text())
    attempts.check("asked")


def test_a_kill_after_the_result_does_not_repeat_the_run(
    run: Callable[[str], Attempts], tmp_path: Path
) -> None:
    """Between result.json and the logger's end: the next attempt only tells the logger."""
    attempts = run("loren")
    # the last: the logger's end, before and after the removal of the mark, and of the lock
    assert attempts.killed("late", attempts.instants - 5) == -signal.SIGKILL
    folder = attempts.folder("late")
    assert folder.mirroring.exists()
    written = folder.result.stat().st_mtime_ns
    log = tmp_path / "heard"
    told = {"_target_": "tests.run.killer.Told", "path": str(log)}
    for _ in range(2):  # the second has nothing to tell
        assert attempts.attempt("late", logger=told) == 0
        assert log.read_text().split() == ["begin", "end"]
    assert folder.result.stat().st_mtime_ns == written
    assert not folder.mirroring.exists()
    attempts.check("late")


def test_a_damaged_checkpoint_is_named_and_the_one_before_used(
    run: Callable[[str], Attempts],
) -> None:
    """Of AdamW's two the newer loses a bit: the log says so, and the bits are the same."""
    attempts = run("adamw")
    assert attempts.killed("hurt", attempts.instants * 3 // 4) == -signal.SIGKILL
    folder = attempts.folder("hurt")
    older, newer = sorted(folder.path.glob("checkpoint-*.pt"))
    content = bytearray(newer.read_bytes())
    content[len(content) // 2] ^= 1
    newer.write_bytes(content)
    assert attempts.attempt("hurt") == 0
    log = folder.log.read_text()
    assert f"{newer.name} is damaged" in log
    assert f"step {int(older.name.split('-')[1])} from a checkpoint" in log
    attempts.check("hurt")


def test_another_past_is_refused(run: Callable[[str], Attempts]) -> None:
    """Other base weights, and a ledger that leads elsewhere: each is named, and no step taken."""
    attempts = run("loren")
    assert attempts.killed("moved", attempts.instants // 2) == -signal.SIGKILL
    folder = attempts.folder("moved")
    meta = read_json(folder.meta)
    write_json(folder.meta, meta | {"base": "0" * 64})
    assert attempts.attempt("moved") == 1
    reason = read_json(folder.failure)["reason"]
    assert reason.startswith("model: the weights before training are not those")
    write_json(folder.meta, meta)
    found = recover(folder.ledger)
    with Ledger(folder.ledger, 0) as ledger:
        ledger.mark(found.marks[0])
        for record in found.records[:5]:
            ledger.append(record)
        ledger.mark(found.marks[5] ^ 1)
    assert attempts.attempt("moved") == 1
    reason = read_json(folder.failure)["reason"]
    assert reason.startswith("ledger.bin: after 5 steps the weights are not those")
    assert len(recover(folder.ledger).records) == 5
