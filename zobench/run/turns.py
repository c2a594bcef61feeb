"""Whose turn it is, among runs that share a process and a model."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor


class Clock:
    """Seconds that one of several runs has had: its turns, and its shares of common work."""

    def __init__(self) -> None:
        self._spent = 0.0
        self._since: float | None = None

    def __call__(self) -> float:
        running = 0.0 if self._since is None else time.perf_counter() - self._since
        return self._spent + running

    @contextmanager
    def turn(self) -> Iterator[None]:
        """The time inside is the run's."""
        self._since = time.perf_counter()
        try:
            yield
        finally:
            self._spent, self._since = self(), None

    def add(self, seconds: float) -> None:
        self._spent += seconds


def lend(model: Any, weights: Mapping[str, Tensor]) -> None:
    """Let the model be that of a run: its parameters share memory with the run's copies."""
    for name, parameter in model.named_parameters():
        if name in weights:
            parameter.data = weights[name].data
