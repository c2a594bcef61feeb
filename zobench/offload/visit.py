"""A function that can be paused from inside: several evaluations go through a model side by side.

A model's forward is a plain function. To take it from block to block together with others, each
runs in a thread of its own, of which one runs at a time: until its next pause, or its end.
"""

from collections.abc import Callable
from contextlib import nullcontext
from threading import Semaphore, Thread
from typing import Generic, TypeVar

import torch

Value = TypeVar("Value")


class _Closed(BaseException):
    """Raised at a pause of a visit that will not go on."""


class Visit(Generic[Value]):
    """An evaluation without gradients that pauses at each block.

    Args:
        function: What is run.
        device: On its current stream the function computes.

    Attributes:
        values: What the function returned, once it has ended.
    """

    def __init__(self, function: Callable[[], Value], device: torch.device) -> None:
        self._function = function
        self._stream = torch.cuda.current_stream(device) if device.type == "cuda" else None
        self._go, self._back = Semaphore(0), Semaphore(0)
        self._thread = Thread(target=self._run, daemon=True)
        self._place: int | None = None
        self._error: BaseException | None = None
        self._closed = False
        self.values: list[Value] = []

    def resume(self) -> int | None:
        """Run up to the next pause; returns its place, None at the end. Raises what it raises."""
        if self._thread.ident is None:
            self._thread.start()
        self._place = None
        self._go.release()
        self._back.acquire()
        if self._error is not None:
            raise self._error
        return self._place

    def pause(self, place: int) -> None:
        """Called by the function: wait until `resume`."""
        self._place = place
        self._back.release()
        self._go.acquire()
        if self._closed:
            raise _Closed

    def close(self) -> None:
        """End it where it is, and wait for its end."""
        if self._thread.is_alive():
            self._closed = True
            self._go.release()
            self._thread.join()

    def _run(self) -> None:
        self._go.acquire()
        try:
            on_stream = nullcontext() if self._stream is None else torch.cuda.stream(self._stream)
            with on_stream, torch.no_grad():
                self.values.append(self._function())
        except _Closed:
            pass
        except BaseException as error:
            self._error = error
        self._back.release()
