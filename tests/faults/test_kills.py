"""Forty kills: each of them, then the rest of the run, and its bits are those of a run left alone.

`make test-faults` runs these; tests/run/test_resume.py has a few that every `make test` runs.
"""

import os
import random
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.run.attempts import Attempts
from zobench.launch.process import ForkServer
from zobench.zo.ledger import recover

Compose = Callable[..., dict[str, Any]]
pytestmark = [
    pytest.mark.faults,
    pytest.mark.skipif(sys.platform != "linux", reason="only Linux runs are forked"),
]
METHODS = {
    "mezo": (),
    "conmezo": ("train.select=last",),
    "ldsd_adamm": ("model.dtype=bfloat16",),
    "loren": ("optimizer.pack=2", "train.micro_batch_size=3"),
    "curvzo": ("diagnose.every=3", "train.keep_weights=false"),
    "adamw": ("train.select=last",),
    "agzo": ("model.dtype=bfloat16",),
    "mezo_adam": ("model.dtype=float16", "checkpoint.beside_ledger=true"),
}
KILLS = 5  # each


@pytest.mark.parametrize("method", METHODS)
def test_five_kills_at_seeded_instants(
    server: ForkServer, compose: Compose, tmp_path: Path, method: str
) -> None:
    """Each is followed by an attempt that nobody kills, which ends with the same bits."""
    run = Attempts(server, compose, tmp_path, f"optimizer={method}", *METHODS[method])
    run.survive(random.Random(method).sample(range(run.count()), KILLS))


@pytest.mark.parametrize("method", METHODS)
def test_killed_again_and_again(
    server: ForkServer, compose: Compose, tmp_path: Path, method: str
) -> None:
    """One run, killed by the clock wherever it is until an attempt gets to the end."""
    run = Attempts(server, compose, tmp_path, f"optimizer={method}", *METHODS[method])
    assert run.attempt("whole") == 0
    draw = random.Random(method)
    for attempt in range(8):
        killer = threading.Thread(target=kill_child_of, args=(server, draw.uniform(0.1, 1.2)))
        killer.start()
        status = run.attempt("often")
        killer.join()
        assert status in (0, -signal.SIGKILL), attempt
    assert run.attempt("often") == 0
    run.check("often")


def kill_child_of(server: ForkServer, seconds: float) -> None:
    """Kill the run that the server has after so many seconds, if it still has one."""
    time.sleep(seconds)
    parent = server._process.pid
    for child in Path(f"/proc/{parent}/task/{parent}/children").read_text().split():
        os.kill(int(child), signal.SIGKILL)


def test_a_ledger_cut_at_every_byte_of_its_tail(
    server: ForkServer, compose: Compose, tmp_path: Path
) -> None:
    """The run goes on from the last whole step, whatever the byte, and ends with the same bits."""
    run = Attempts(server, compose, tmp_path, "optimizer=conmezo", "budget.steps=6")
    instants = run.count()
    assert run.killed("cut", instants - 14) == -signal.SIGKILL
    folder = run.folder("cut")
    assert not folder.result.exists()
    left = {path: path.read_bytes() for path in folder.path.iterdir() if path.is_file()}
    whole = folder.ledger.read_bytes()
    tail = 60  # the last two steps and the mark between or after them
    for size in range(len(whole) - tail, len(whole)):
        shutil.rmtree(folder.path)  # with the folder that its owner wrote in
        folder.path.mkdir()
        for path, content in left.items():
            path.write_bytes(content)
        folder.ledger.write_bytes(whole[:size])
        steps = len(recover(folder.ledger).records)
        assert run.attempt("cut") == 0
        assert f"{steps} steps from the ledger" in folder.log.read_text()
        run.check("cut")
