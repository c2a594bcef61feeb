"""metrics.jsonl: every row exactly once, also after interruptions; the logger mirrors it."""

import io
import json
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

from zobench.errors import UserError
from zobench.run.durable import renewed
from zobench.run.fence import fence_of
from zobench.run.loggers.base import Logger

Row = dict[str, Any]


class MetricsLog:
    """Writes rows and passes them to the logger; a context manager.

    A row is identified by its step and the part (train, dev, test, diagnose) of its first metric;
    rows of an earlier attempt are not written again. Entering copies the file, so that no earlier
    process has it open.
    """

    def __init__(self, path: Path, logger: Logger) -> None:
        self._path, self._logger = path, logger
        self.rows, self._size = read_rows(path)
        self._known = {(row["step"], _about(row)): row for row in self.rows}
        self._file: TextIO | None = None

    def known(self, step: int, about: str) -> Row | None:
        """The row of a step and part, if there is one."""
        return self._known.get((step, about))

    def about(self, part: str) -> list[Row]:
        """All rows of a part, oldest first."""
        return [row for row in self.rows if _about(row) == part]

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Append a row, unless it exists."""
        row: Row = {"step": step} | {k: finite(v) for k, v in values.items()}
        if (step, _about(row)) in self._known:
            return
        assert self._file is not None
        fence_of(self._path.parent).check()
        self._file.write(json.dumps(row) + "\n")
        self._file.flush()
        self.rows.append(row)
        self._known[step, _about(row)] = row
        self._logger.log(row)

    def __enter__(self) -> "MetricsLog":
        whole = self._path.read_bytes()[: self._size] if self._size else b""
        file = renewed(self._path, whole)
        self._file = io.TextIOWrapper(io.BufferedWriter(file), encoding="utf-8")
        return self

    def __exit__(self, *_: object) -> None:
        assert self._file is not None
        self._file.close()


def read_rows(path: Path) -> tuple[list[Row], int]:
    """The rows of a file, and the size of its complete lines in bytes.

    A truncated last line is reported and left out; UserError for a damaged line before it.
    """
    rows: list[Row] = []
    data = path.read_bytes() if path.is_file() else b""
    lines = data.splitlines(keepends=True)
    size = 0
    for number, line in enumerate(lines, 1):
        row = _parsed(line)
        if row is None:
            if any(_parsed(later) for later in lines[number:]):
                raise UserError(f"{path}:{number}: damaged; repair it or remove the run's folder")
            print(f"{path}:{number} is cut off and left out", file=sys.stderr, flush=True)
            break
        rows.append(row)
        size += len(line)
    return rows, size


def finite(value: float) -> float | None:
    """The value; None (JSON's null) for NaN and infinities."""
    return value if math.isfinite(value) else None


def value_of(number: float | None) -> float:
    """The value; NaN for None."""
    return math.nan if number is None else number


def _about(row: Mapping[str, Any]) -> str:
    first: str = next(key for key in row if key != "step")
    return first.split("/")[0]


def _parsed(line: bytes) -> Row | None:
    """The row of a complete line; None for anything else."""
    try:
        row = json.loads(line) if line.endswith(b"\n") else None
    except ValueError:
        return None
    return row if isinstance(row, dict) and len(row) > 1 and "step" in row else None
