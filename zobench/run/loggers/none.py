"""No mirror of the run folder."""

from collections.abc import Mapping
from typing import Any


class NoLogger:
    """Ignores all calls."""

    def begin(self, *run: Any) -> None: ...

    def log(self, row: Mapping[str, float | None]) -> None: ...

    def end(self, result: Mapping[str, Any]) -> None: ...

    def abort(self) -> None: ...
