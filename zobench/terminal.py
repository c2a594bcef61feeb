"""The terminal of a command: a reader of its output that ends, and Ctrl-C while it starts."""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, TextIO, cast


class Display:
    """A text stream that discards what is written after its reader has ended."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        try:
            self._stream.write(text)
        except BrokenPipeError:
            self._discard()
        return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except BrokenPipeError:
            self._discard()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _discard(self) -> None:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._stream.fileno())  # also for what the stream still holds
        os.close(nowhere)


def outlive_readers() -> None:
    """Let this process continue when the reader of its stdout or stderr ends.

    So `zobench ... | head` ends the display and never a run.
    """
    if not isinstance(sys.stdout, Display):
        sys.stdout = cast(TextIO, Display(sys.stdout))
        sys.stderr = cast(TextIO, Display(sys.stderr))


@contextmanager
def ended_by_interrupt() -> Iterator[None]:
    """Ctrl-C inside the block ends the process at once, with one line.

    For imports: code of torch loses a KeyboardInterrupt, or aborts at it.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # which gets no signals
        return
    before = signal.signal(signal.SIGINT, _end)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _end(number: int, frame: FrameType | None) -> None:
    del number, frame
    os.write(2, b"interrupted\n")
    os._exit(130)
