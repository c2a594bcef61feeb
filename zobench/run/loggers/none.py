"""No mirror: the run folder is all there is."""

from collections.abc import Mapping, Sequence
from typing import Any

from zobench.run.folder import RunFolder


class NoLogger:
    """Ignores everything it is told."""

    def begin(
        self,
        folder: RunFolder,
        settings: Mapping[str, Any],
        meta: Mapping[str, Any],
        rows: Sequence[Mapping[str, float | None]],
    ) -> None: ...

    def log(self, row: Mapping[str, float | None]) -> None: ...

    def end(self, result: Mapping[str, Any]) -> None: ...

    def abort(self) -> None: ...
