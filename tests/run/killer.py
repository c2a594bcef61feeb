"""A logger that kills its run: at a chosen one of the instants between which files change."""

import itertools
import os
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from zobench.run.checkpoint import _CRCFile
from zobench.run.loggers.none import NoLogger
from zobench.run.metrics_log import MetricsLog
from zobench.run.steps import Steps
from zobench.zo.ledger import Ledger

COUNTS = "instants"  # file in the run folder


def abort() -> None:
    """A logger that is none, and ends the process where it is."""
    os.abort()


class Killer(NoLogger):
    """at: which instant, counted from 0; -1 counts them all into a file. by: a signal's name.

    Instants are before and after each step, rename and removal of a file, row of metrics, ledger
    entry and 40th piece of a checkpoint, in the middle of a row or entry, and at the logger's end.
    """

    def __init__(self, at: int, by: str = "SIGKILL") -> None:
        self.at, self.by, self.seen = at, getattr(signal, by), 0

    def begin(self, folder: Any, *_: Any) -> None:
        self.folder: Path = folder.path
        self._around(Steps, "prepare")
        self._around(Steps, "taken")
        self._around(Path, "replace")
        self._around(Path, "unlink")
        self._around(_CRCFile, "write", every=40)
        self._around(MetricsLog, "write", self._half_a_row)
        self._around(Ledger, "_write", self._half_an_entry)

    def end(self, result: Mapping[str, Any]) -> None:
        del result
        self._instant()

    def _instant(self, meanwhile: Callable[[], object] = lambda: None) -> None:
        if self.seen == self.at:
            meanwhile()
            os.kill(os.getpid(), self.by)
        self.seen += 1
        if self.at < 0:
            (self.folder / COUNTS).write_text(str(self.seen))

    def _around(
        self,
        owner: type,
        name: str,
        half: Callable[..., object] | None = None,
        every: int = 1,
    ) -> None:
        whole, calls = getattr(owner, name), itertools.count()

        def watched(*arguments: Any, **named: Any) -> Any:
            if next(calls) % every:
                return whole(*arguments, **named)
            self._instant()
            if half is not None:
                self._instant(lambda: half(*arguments))
            answer = whole(*arguments, **named)
            self._instant()
            return answer

        setattr(owner, name, watched)

    def _half_a_row(self, metrics_log: MetricsLog, *_: Any) -> None:
        if self.by == signal.SIGKILL:
            assert metrics_log._file is not None
            metrics_log._file.write('{"step": 12, "tra')
            metrics_log._file.flush()

    def _half_an_entry(self, ledger: Ledger, entry: bytes) -> None:
        if self.by == signal.SIGKILL:
            ledger._file.write(entry[: len(entry) // 2])


class Told(NoLogger):
    """Notes that a run began and ended."""

    def __init__(self, path: str) -> None:
        self.path = Path(path)

    def begin(self, *_: Any) -> None:
        self._note("begin")

    def end(self, result: Mapping[str, Any]) -> None:
        del result
        self._note("end")

    def _note(self, word: str) -> None:
        with self.path.open("a") as file:
            file.write(word + "\n")
