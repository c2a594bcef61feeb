"""How a command that launches runs is asked to stop, and the processes that launch runs for it.

Left to itself, joblib kills its workers and all below them when the command is asked to stop; and
when the command is killed, they carry out what they were given. A job of submitit's, asked to stop,
would be queued again while its run still saves.
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

_SUBMITIT = (signal.SIGUSR2, signal.SIGUSR1)  # one of them says that the job's time is over
_PAUSE = 0.2  # seconds between two looks at the command


class Command(Stop):
    """A command that launches runs: Stop, but where it has workers they are asked, and waited for.

    Then nothing is raised before `finish`, but for a second SIGINT.
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
        """Raise what was held back while workers ended."""
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

    signals: that ask its run to stop. stopping: whether it begins no further run. requeue: called
    when its run has been asked to stop and has saved. queued_as: the id of a job of submitit's.
    """

    signals: tuple[signal.Signals, ...]
    stopping: Callable[[], bool] = lambda: False
    requeue: Callable[[], None] = lambda: None
    queued_as: str | None = None


def helper() -> Helper | None:
    """What this process is: a worker of joblib's, a job of submitit's, or (None) the command."""
    command, place = command_of()
    if command == str(os.getppid()) and Path(place).is_dir():
        return _joblib_worker(Path(place))
    handled = [number for number in _SUBMITIT if callable(signal.getsignal(number))]
    return _queued_job(handled[0]) if handled and command != str(os.getpid()) else None


_watched = False  # whether this process looks at its command


def _joblib_worker(folder: Path) -> Helper:
    """When the command stops, the run saves, and the worker lives on: joblib needs all of them."""
    global _watched
    if not _watched:
        _watched = True
        (folder / "workers").touch()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)  # between two jobs
        watch = threading.Thread(target=_look_at, args=(os.getppid(), folder), daemon=True)
        watch.start()
    return Helper((signal.SIGTERM,), stopping=(folder / "stop").exists)


def _look_at(command: int, folder: Path) -> None:
    """End this process with its command, whose runs then save; stop its job when it is asked to."""
    while not (folder / "stop").exists():
        if os.getppid() != command:
            os._exit(1)
        time.sleep(_PAUSE)
    os.kill(os.getpid(), signal.SIGTERM)
    while os.getppid() == command:
        time.sleep(_PAUSE)
    os._exit(1)


def _queued_job(number: signal.Signals) -> Helper:
    """On submitit's signal the run saves, then submitit queues the job again."""
    from submitit import JobEnvironment

    queue = signal.getsignal(number)
    assert callable(queue)

    def requeue() -> None:
        try:
            queue(number, None)  # ends this process
        except Exception as refused:
            print(refused, flush=True)

    return Helper((number,), requeue=requeue, queued_as=JobEnvironment().job_id)
