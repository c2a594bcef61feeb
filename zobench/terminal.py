"""Output whose reader may end: `zobench ... | head` ends the display and never a run."""

import os
import sys
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
    """Let this process continue when the reader of its stdout or stderr ends."""
    if not isinstance(sys.stdout, Display):
        sys.stdout = cast(TextIO, Display(sys.stdout))
        sys.stderr = cast(TextIO, Display(sys.stderr))
