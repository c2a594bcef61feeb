"""Being asked to stop, as by Slurm: SIGTERM, SIGUSR1, SIGUSR2, SIGINT end a run between steps."""

import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any

REQUEUE = 75  # exit status of what was asked to stop and can go on: EX_TEMPFAIL of sysexits.h
SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT)  # USR2: submitit's


class Stopped(BaseException):
    """The process was asked to stop; carries the signal's name."""


class Stop:
    """Turns the first signal into Stopped, raised wherever the process is, or when a hold ends.

    A context manager that listens inside its block, where that is the main thread; elsewhere, and
    without the block, nothing ever asks. Signals after the first are ignored, so that what is on
    its way out can save; a SIGINT then is a KeyboardInterrupt, for a person in a hurry.
    """

    def __init__(self, signals: Sequence[signal.Signals] = SIGNALS) -> None:
        self._signals = signals
        self._before: dict[signal.Signals, Any] = {}
        self._held = False
        self._name: str | None = None

    @property
    def asked(self) -> bool:
        return self._name is not None

    @property
    def name(self) -> str | None:
        """Of the signal that asked."""
        return self._name

    def hold(self) -> None:
        """From here on a signal is only noted, for who asks for its name."""
        self._held = True

    def meet(self, step: int, *, due: bool = False, compare: bool = False) -> bool:
        """What ranks agree upon after a step: whether something is due."""
        del step, compare
        return due

    @contextmanager
    def held(self) -> Iterator[None]:
        """Inside the block a signal is only noted: whoever holds looks at `asked`."""
        self._held = True
        try:
            yield
        finally:
            self._held = False
        if self._name is not None:
            raise Stopped(self._name)

    def __enter__(self) -> "Stop":
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._hear) for number in self._signals}
            signal.pthread_sigmask(signal.SIG_UNBLOCK, self._signals)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        del frame
        if self._name is None:
            self._name = signal.Signals(number).name
            if not self._held:
                raise Stopped(self._name)
        elif number == signal.SIGINT:
            raise KeyboardInterrupt
