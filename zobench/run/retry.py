"""Which failures of a run are tried again, and how often, within one launch."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from zobench.run.failure import MEMORY
from zobench.run.smaller import can_be_smaller


class Retries:
    """Counts the failures of one run against `retries`, by kind; a kind not there is never retried.

    What was out of memory is tried with batches in parts of half the size, if there are halves.
    """

    def __init__(self, settings: Mapping[str, Any], halved: int) -> None:
        self.halved = halved  # how often the parts of batches have been
        self._settings, self._tried = settings, Counter[str]()

    def again(self, kind: str) -> str | None:
        """How the next attempt is called, `attempt 1 of 2`; None where there is none."""
        most = self._settings["retries"].get(kind, 0)
        if self._tried[kind] >= most:
            return None
        smaller = ""
        if kind == MEMORY:
            if not can_be_smaller(self._settings, self.halved):
                return None
            self.halved += 1
            smaller = ", batches in parts of half the size"
        self._tried[kind] += 1
        return f"retry {self._tried[kind]} of {most}{smaller}"
