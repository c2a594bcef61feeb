"""Several loggers at once, such as those of `logger=[wandb,tensorboard]`."""

import contextlib
import sys
from collections.abc import Callable, Sequence

from zobench.environment import reason_of
from zobench.run.folder import RunFolder
from zobench.run.loggers.base import Logger, Plain, Row


class Loggers:
    """Passes a run to each logger; one that fails is reported on stderr and left out from then on.

    Each option of the group `logger` has this class and a key of its own, so that Hydra merges a
    list of options into one node.

    Args:
        loggers: by their keys in the settings.
    """

    def __init__(self, **loggers: Logger) -> None:
        self._loggers = loggers

    def begin(self, folder: RunFolder, settings: Plain, meta: Plain, rows: Sequence[Row]) -> None:
        self._each(lambda logger: logger.begin(folder, settings, meta, rows))

    def log(self, row: Row) -> None:
        self._each(lambda logger: logger.log(row))

    def end(self, result: Plain) -> None:
        self._each(lambda logger: logger.end(result))

    def abort(self) -> None:
        self._each(lambda logger: logger.abort())

    def _each(self, call: Callable[[Logger], None]) -> None:
        for name, logger in list(self._loggers.items()):
            try:
                call(logger)
            except Exception as error:
                del self._loggers[name]
                with contextlib.suppress(Exception):
                    logger.abort()
                reason = f"logger.{name}: {reason_of(error)}"
                print(f"{reason}; the run continues without it", file=sys.stderr, flush=True)
