"""A mirror of the run folder."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from zobench.run.folder import RunFolder


class Logger(Protocol):
    """Told of a run's beginning, its metric rows and its end; called by the runner alone."""

    def begin(
        self,
        folder: RunFolder,
        settings: Mapping[str, Any],
        meta: Mapping[str, Any],
        rows: Sequence[Mapping[str, float | None]],
    ) -> None:
        """The run starts, or goes on: these rows of metrics were there before."""

    def log(self, row: Mapping[str, float | None]) -> None:
        """One line of metrics.jsonl."""

    def end(self, result: Mapping[str, Any]) -> None:
        """The run has the result that result.json will hold."""

    def abort(self) -> None:
        """The run fails; whatever was logged so far is closed properly."""
