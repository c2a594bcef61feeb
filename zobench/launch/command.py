"""The command that launches runs: how it is asked to stop, and how its processes know of it."""

import os
import signal
import tempfile
from pathlib import Path
from types import FrameType

from zobench.run.notes import COMMAND, command_of
from zobench.run.stop import Stop, Stopped


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

    def _hear(self, number: int, frame: FrameType | None) -> None:
        folder = Path(self._folder.name)
        if self._name is None and (folder / "workers").exists():
            self._name = signal.Signals(number).name
            (folder / "stop").touch()
            print(f"{self._name}: waiting for the runs to save", flush=True)
        elif number == signal.SIGINT:
            raise KeyboardInterrupt
        else:
            super()._hear(number, frame)


def is_command() -> bool:
    """Whether this process is the command itself."""
    return command_of()[0] == str(os.getpid())


def started_by() -> Path | None:
    """The folder of the command that has started this very process; None for any other process."""
    command, folder = command_of()
    return Path(folder) if command == str(os.getppid()) and Path(folder).is_dir() else None
