"""Stop requests for a command that launches runs, and for the processes that launch for it.

By default, joblib kills its workers and their children when the command is stopped, and its workers
continue when the command is killed; submitit requeues a stopped job while its run still saves.
"""

import os
import signal
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import NamedTuple

from zobench.run.notes import COMMAND, command_of
from zobench.run.stop import Stop, Stopped
from zobench.terminal import outlive_readers

_SUBMITIT = (signal.SIGUSR2, signal.SIGUSR1)  # submitit uses one of them at the job's time limit
_PAUSE = 0.2  # seconds between two checks of the command


class Command(Stop):
    """Stop for a command that launches runs; if it has workers, it lets them save and waits.

    Then only `finish` raises, or a second SIGINT.
    """

    def __init__(self) -> None:
        super().__init__((signal.SIGTERM, signal.SIGUSR1, signal.SIGINT))
        self._folder = tempfile.TemporaryDirectory(prefix="zobench-", ignore_cleanup_errors=True)

    def __enter__(self) -> "Command":
        os.environ[COMMAND] = f"{os.getpid()}:{self._folder.name}"
        super().__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)
        del os.environ[COMMAND]
        self._folder.cleanup()

    def finish(self) -> None:
        """Raise the exception of a signal that arrived while workers were running."""
        if self._name == signal.SIGINT.name:
            raise KeyboardInterrupt
        if self._name is not None:
            raise Stopped(self._name)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        folder = Path(self._folder.name)
        if self._name is None and (folder / "workers").exists():
            self._name = signal.Signals(number).name
            (folder / "stop").touch()
            print(f"{self._name}: waiting for the runs to save", flush=True)
        elif number == signal.SIGINT:
            raise KeyboardInterrupt
        else:
            super()._handle(number, frame)


class Helper(NamedTuple):
    """A process that launches runs for a command.

    signals: they stop its run. stopping: whether it must not begin another run. requeue: called
    after a stopped run has saved. queued_as: the id of a submitit job.
    """

    signals: tuple[signal.Signals, ...]
    stopping: Callable[[], bool] = lambda: False
    requeue: Callable[[], None] = lambda: None
    queued_as: str | None = None


def helper() -> Helper | None:
    """The Helper of a joblib worker or a submitit job; None in the command's own process."""
    command, place = command_of()
    if command == str(os.getppid()) and Path(place).is_dir():
        return _joblib_worker(Path(place))
    handled = [number for number in _SUBMITIT if callable(signal.getsignal(number))]
    return _queued_job(handled[0]) if handled and command != str(os.getpid()) else None


_watched = False  # whether this process watches its command


def _joblib_worker(folder: Path) -> Helper:
    """When the command stops, the run saves and the worker stays alive, as joblib requires."""
    global _watched
    if not _watched:
        _watched = True
        outlive_readers()
        (folder / "workers").touch()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)  # between two jobs
        threading.Thread(target=_watch, args=(os.getppid(), folder), daemon=True).start()
    return Helper((signal.SIGTERM,), stopping=(folder / "stop").exists)


def _watch(command: int, folder: Path) -> None:
    """Stop the run at the command's request, and end this process with the command."""
    while not (folder / "stop").exists():
        if os.getppid() != command:
            os._exit(1)
        time.sleep(_PAUSE)
    os.kill(os.getpid(), signal.SIGTERM)
    while os.getppid() == command:
        time.sleep(_PAUSE)
    os._exit(1)


def _queued_job(number: signal.Signals) -> Helper:
    """At submitit's signal the run saves; then submitit requeues the job."""
    from submitit import JobEnvironment

    queue = signal.getsignal(number)
    assert callable(queue)

    def requeue() -> None:
        try:
            queue(number, None)  # ends this process
        except Exception as error:
            print(error, flush=True)

    return Helper((number,), requeue=requeue, queued_as=JobEnvironment().job_id)
