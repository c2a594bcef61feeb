"""Runs on the tiny model that are killed and resume, and the files that must be the same."""

import gzip
import json
import signal
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from tests.run.killer import COUNTS
from zobench.launch.job import Job, Outcome
from zobench.launch.process import ForkServer
from zobench.run.folder import RunFolder, read_json

Compose = Callable[..., dict[str, Any]]
SMALL = (
    *("task.sizes.train=48", "task.sizes.dev=16", "task.sizes.test=16", "train.batch_size=8"),
    *("budget.steps=14", "train.eval_every=5", "train.log_every=2", "threads=1", "logger=none"),
    *("checkpoint.steps=4", "checkpoint.minutes=null", "train.final_lr=0.3"),
)
TIMED = ("time/", "memory/", "diagnose/seconds")


class Attempts:
    """Attempts at one run in processes of their own, in folders below `root`."""

    killer = "tests.run.killer.Killer"

    def __init__(self, server: ForkServer, compose: Compose, root: Path, *overrides: str) -> None:
        self.server, self.root = server, root
        self.settings = compose(*SMALL, f"runs_root={root}", *overrides)

    def attempt(self, at: str, **replaced: Any) -> int | None:
        """Begin or resume the run; the exit status, -N for signal N."""
        folder = self.folder(at)
        choices = {"task": "t", "model": "tiny", "tuning": "full", "optimizer": "o"}
        meta = {"id": "0" * 8, "name": at, "suite": "s", "seed": 0, "choices": choices}
        folder.begin(self.settings | replaced, meta)
        return status_of(self.server.run(Job.begun(folder.path)))

    def killed(self, at: str, instant: int, by: str = "SIGKILL", **replaced: Any) -> int | None:
        """An attempt that ends at an instant."""
        logger = {"_target_": self.killer, "at": instant, "by": by}
        return self.attempt(at, logger=logger, **replaced)

    def count(self) -> int:
        """The number of instants in an uninterrupted run, which becomes `whole`."""
        assert self.killed("whole", -1) == 0
        self.instants = int((self.folder("whole").path / COUNTS).read_text())
        return self.instants

    def survive(self, instants: Iterable[int]) -> None:
        """Killed at each of these instants, the run resumes and ends with the bits of `whole`."""
        for instant in instants:
            at = f"at-{instant}"
            assert self.killed(at, instant) == -signal.SIGKILL
            assert self.attempt(at) == 0
            self.check(at)

    def folder(self, at: str) -> RunFolder:
        return RunFolder(self.root / at)

    def check(self, at: str, like: str = "whole") -> None:
        """The run is finished, and all its numbers and bits are those of another."""
        mine, theirs = self.folder(at), self.folder(like)
        for name in ("ledger", "weights"):
            one, two = getattr(mine, name), getattr(theirs, name)
            assert one.is_file() == two.is_file()
            assert not one.is_file() or one.read_bytes() == two.read_bytes(), name
        assert gzip.decompress(mine.predictions.read_bytes()) == gzip.decompress(
            theirs.predictions.read_bytes()
        )
        assert rows_of(mine) == rows_of(theirs)
        mine_result, their_result = (untimed(read_json(f.result)) for f in (mine, theirs))
        assert mine_result == their_result
        left = {path.name for path in mine.path.iterdir()}
        allowed = {path.name for path in theirs.path.iterdir()} - {COUNTS}
        assert left <= allowed | {"stderr.log"}, left - allowed


def status_of(answer: list[Outcome] | int | None) -> int | None:
    """The exit status of a process that carried out one run."""
    return answer[0].exit_status if isinstance(answer, list) else answer


def rows_of(folder: RunFolder) -> list[dict[str, Any]]:
    """The rows of metrics without what a clock or the machine says."""
    rows = [json.loads(line) for line in folder.metrics.read_text().splitlines()]
    return [{k: v for k, v in row.items() if not k.startswith(TIMED)} for row in rows]


def untimed(result: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in result.items() if k not in ("time", "memory")}
