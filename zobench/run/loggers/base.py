"""Loggers mirror the run folder."""

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Any, Protocol

from zobench.errors import UserError
from zobench.run.folder import RunFolder

Plain = Mapping[str, Any]  # settings, meta.json and result.json
Row = Mapping[str, float | None]  # a line of metrics.jsonl


class Logger(Protocol):
    """Receives a run's beginning, metric rows and end from the runner."""

    def begin(self, folder: RunFolder, settings: Plain, meta: Plain, rows: Sequence[Row]) -> None:
        """The run starts or resumes; `rows` are the metrics of earlier attempts."""

    def log(self, row: Row) -> None:
        """One line of metrics.jsonl."""

    def end(self, result: Plain) -> None:
        """The run ends with this result."""

    def abort(self) -> None:
        """The run fails; close what was logged."""


def require(package: str, option: str) -> None:
    """Raise UserError if the package of an option of `logger` is not installed."""
    if find_spec(package) is None:
        raise UserError(
            f"logger={option}: the package {package} is not installed; pip install zobench[loggers]"
        )


class DeferredLogger:
    """Passes a run to a logger once it has ended, for runs that share a process.

    Failed runs are not passed on.
    """

    def __init__(self, logger: Logger) -> None:
        self.logger = logger
        self._rows: list[Row] = []

    def begin(self, *run: Any) -> None:
        self._begun = run

    def log(self, row: Row) -> None:
        self._rows.append(row)

    def end(self, result: Plain) -> None:
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
