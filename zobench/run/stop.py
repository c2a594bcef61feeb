"""Stop requests: SIGTERM, SIGUSR1, SIGUSR2 (as from Slurm) and SIGINT end a run between steps."""

import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any

REQUEUE = 75  # exit status after a stop request, if the run can resume: EX_TEMPFAIL of sysexits.h
SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT)  # USR2: submitit's


class Stopped(BaseException):
    """A signal has requested a stop; carries the signal's name."""


class Stop:
    """Raises Stopped at the first signal, at once or at the end of a `held` block.

    A context manager; it handles signals inside its block, in the main thread. Later signals are
    ignored, so that the run can save, but a second SIGINT raises KeyboardInterrupt.
    """

    def __init__(self, signals: Sequence[signal.Signals] = SIGNALS) -> None:
        self._signals = signals
        self._before: dict[signal.Signals, Any] = {}
        self._held = False
        self._name: str | None = None

    @property
    def requested(self) -> bool:
        return self._name is not None

    @property
    def name(self) -> str | None:
        """The name of the signal received."""
        return self._name

    def hold(self) -> None:
        """From now on, only record signals."""
        self._held = True

    def synchronize(self, step: int, *, due: bool = False, compare: bool = False) -> bool:
        """Return `due`; ranks agree on it (`Agreed`)."""
        del step, compare
        return due

    @contextmanager
    def held(self) -> Iterator[None]:
        """Only record signals inside the block, which can check `requested`."""
        self._held = True
        try:
            yield
        finally:
            self._held = False
        if self._name is not None:
            raise Stopped(self._name)

    def __enter__(self) -> "Stop":
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._handle) for number in self._signals}
            signal.pthread_sigmask(signal.SIG_UNBLOCK, self._signals)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        del frame
        if self._name is None:
            self._name = signal.Signals(number).name
            if not self._held:
                raise Stopped(self._name)
        elif number == signal.SIGINT:
            raise KeyboardInterrupt
