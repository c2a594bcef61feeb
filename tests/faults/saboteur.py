"""A logger that lets its run fail, in a way that its seed chooses; named by a `--config-dir`."""

import math
import os
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from zobench.run.closure import CountedLoss
from zobench.run.folder import HALVED
from zobench.run.loggers.none import NoLogger

STEP = 4  # after which it happens
FILLER = "filler"


class Saboteur(NoLogger):
    """kinds: by TASK-SEED, what happens to a run; nothing to others. place: where it is noted."""

    def __init__(self, kinds: Mapping[str, str], place: str) -> None:
        self.kinds, self.place = kinds, Path(place)

    def begin(self, folder: Any, settings: Any, meta: Mapping[str, Any], *_: Any) -> None:
        self.folder, self.meta = folder.path, meta
        self.kind = self.kinds.get(f"{meta['choices']['task']}-{settings['seed']}", "")

    def log(self, row: Mapping[str, Any]) -> None:
        if row["step"] < STEP or not self.kind:
            return
        if self.kind == "memory":  # as long as batches are whole, whichever attempt it is
            if not self.meta.get(HALVED):
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        elif self.kind == "nan":
            CountedLoss.part = lambda *_: torch.tensor(math.nan)  # type: ignore[method-assign]
        elif self._first_time():
            _KINDS[self.kind](self.place)

    def _first_time(self) -> bool:
        mark = self.place / f"{self.kind}-{self.meta['name']}"
        if mark.exists():
            return False
        mark.touch()
        return True


def _crash(_: Path) -> None:
    raise RuntimeError("sabotage")


def _kill(_: Path) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _kill_nursery(_: Path) -> None:
    os.kill(os.getppid(), signal.SIGKILL)


def _kill_launcher(_: Path) -> None:
    server = Path(f"/proc/{os.getppid()}/stat").read_text().rpartition(")")[2].split()
    os.kill(int(server[1]), signal.SIGKILL)


def _fill_disk(place: Path) -> None:
    """Until nothing fits any more."""
    with (Path(os.environ["ZOBENCH_RUNS"]) / FILLER).open("wb", buffering=0) as file:
        for size in (1 << 16, 1):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                continue
    del place


_KINDS: dict[str, Callable[[Path], None]] = {
    "crash": _crash,
    "kill": _kill,
    "kill_nursery": _kill_nursery,
    "kill_launcher": _kill_launcher,
    "full": _fill_disk,
}
