"""One attempt at a run: claim its folder, begin, carry it out, say how that ended."""

import faulthandler
import json
import os
import platform
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, redirect_stderr
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from zobench.errors import UserError
from zobench.launch.failure import KILLED, Failure, described
from zobench.launch.run_lock import Busy, claimed
from zobench.run.fence import fence_of
from zobench.run.folder import RunFolder, read_json
from zobench.run.inputs import check_unchanged
from zobench.run.ranks.group import Group
from zobench.run.runner import run
from zobench.run.stop import REQUEUE, Stop, Stopped
from zobench.run.together import run_together
from zobench.secret import Redacted

DONE, FAILED = 0, 1
BUSY, ALREADY = 16, 17  # exit status where another process is at the run, or has its result


class Order(NamedTuple):
    """A run to be carried out; with settings and meta, what its folder is to begin with."""

    folder: RunFolder
    settings: Mapping[str, Any] | None = None
    meta: Mapping[str, Any] | None = None

    def begin(self) -> None:
        """Make the folder as it is before the run, or before it goes on; a result stays."""
        if self.settings is not None and self.meta is not None and not self.folder.result.is_file():
            self.folder.begin(self.settings, self.meta)

    def described(self) -> Mapping[str, Any]:
        """The settings, given or in the folder."""
        return self.folder.settings() if self.settings is None else self.settings

    def plain(self) -> list[Any]:
        return [str(self.folder.path.resolve()), self.settings, self.meta]

    @classmethod
    def of(cls, plain: Sequence[Any]) -> "Order":
        return cls(RunFolder(Path(plain[0])), *plain[1:])


class Ending(NamedTuple):
    """How a process ended: its exit status, -N for signal N, and what it says for itself."""

    status: int
    kind: str = ""
    reason: str = ""


def attempt(orders: Sequence[Order], group: Group | None = None) -> Ending:
    """Carry out the runs, several side by side, where no other process is at one of them.

    Standard error goes to the first run's log. Whatever happens, a result is whole or not there;
    `failure.json` tells of a failure, if the disk takes it, and the ending does so in any case.
    group: the ranks of a single run; this is the first, and the others wait for its folder.
    """
    folders = [order.folder for order in orders]
    try:
        with ExitStack() as stack:
            for folder in folders:
                folder.path.mkdir(parents=True, exist_ok=True)
                stack.enter_context(claimed(folder.path))
            for order in orders:
                if order.folder.result.is_file():
                    check_unchanged(order.folder, order.described())
            if all(folder.finished for folder in folders):
                return Ending(ALREADY)
            for order in orders:
                order.begin()
            stack.enter_context(logging_to(folders[0].log))
            note_begin(folders)
            if group is not None:
                group.from_first(str(folders[0].path.resolve()))
            ending = carried_out(folders, group)
            note_end(folders, ending.status, ending.kind, ending.reason)
            return ending
    except Busy as busy:
        return Ending(BUSY, reason=str(busy))
    except Exception as error:  # of the folder itself: nothing has been begun
        return Ending(FAILED, *described(error))


def carried_out(folders: Sequence[RunFolder], group: Group | None = None) -> Ending:
    """The runs whose config.yaml the folders hold: status 0 for results, 1 for a failure.

    75 (EX_TEMPFAIL) for what was asked to stop, and goes on when it is started again.
    """
    faulthandler.enable()
    try:
        with Stop() as stop:
            if len(folders) == 1:
                run(folders[0], stop, group)
            else:
                run_together(folders)
    except Stopped as asked:
        print(f"stopped by {asked}; started again, the run goes on", file=sys.stderr)
        return Ending(REQUEUE)
    except Exception as error:
        failure = described(error)
        _explain(error, failure)
        sys.stderr.flush()
        for folder in folders:
            told = failure.kind == KILLED and folder.failure.is_file()  # by the rank that failed
            if not folder.result.is_file() and not told:
                failure.write(folder)
        return Ending(FAILED, *failure)
    return Ending(DONE)


def _explain(error: Exception, failure: Failure) -> None:
    """To the log: the traceback, but for what the user can mend, unless it is wanted."""
    if isinstance(error, UserError) and not os.environ.get("ZOBENCH_TRACE"):
        print(f"error: {failure.reason}", file=sys.stderr)
    else:
        traceback.print_exc()


@contextmanager
def logging_to(log: Path) -> Iterator[None]:
    """Inside the block the process' standard error is the file, also for what is not Python."""
    before = os.dup(2)
    log.unlink(missing_ok=True)  # what an earlier process has to say goes to its own file
    with log.open("w", buffering=1) as file, redirect_stderr(Redacted(file)):
        os.dup2(file.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(before, 2)
            os.close(before)


def note_begin(folders: Sequence[RunFolder]) -> None:
    """An attempt begins in this process. One without an end in the file was killed."""
    for folder in folders:
        _append(folder, {"event": "begun", "pid": os.getpid(), "host": platform.node()})


def note_end(folders: Sequence[RunFolder], status: int, kind: str, reason: str) -> None:
    """The attempt has ended; a failure with the end of its log, which the next attempt replaces."""
    for folder in folders:
        row: dict[str, Any] = {"event": "stopped" if status == REQUEUE else "failed"}
        if folder.result.is_file():
            row = {"event": folder.ended()["status"]}
        elif folder.failure.is_file():
            row |= {"tail": read_json(folder.failure)["tail"]}
        try:
            _append(folder, {**row, **({"kind": kind, "reason": reason} if kind else {})})
        except OSError:
            return  # the disk takes no more, which whoever launched the run is told otherwise


def _append(folder: RunFolder, row: dict[str, Any]) -> None:
    line = json.dumps({"time": datetime.now(UTC).isoformat(timespec="seconds"), **row})
    fence_of(folder.path).check()
    with folder.attempts.open("a", encoding="utf-8") as file:
        file.write(line + "\n")
