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


class Afterwards:
    """For runs that share a process, where a logger can follow one at a time.

    A run that fails is not passed on.
    """

    def __init__(self, logger: Logger) -> None:
        self.logger = logger
        self._rows: list[Mapping[str, float | None]] = []

    def begin(
        self,
        folder: RunFolder,
        settings: Mapping[str, Any],
        meta: Mapping[str, Any],
        rows: Sequence[Mapping[str, float | None]],
    ) -> None:
        self._begun = (folder, settings, meta, rows)

    def log(self, row: Mapping[str, float | None]) -> None:
        self._rows.append(row)

    def end(self, result: Mapping[str, Any]) -> None:
        self.logger.begin(*self._begun)
        try:
            for row in self._rows:
                self.logger.log(row)
        except BaseException:
            self.logger.abort()
            raise
        self.logger.end(result)

    def abort(self) -> None:
        self._rows.clear()
