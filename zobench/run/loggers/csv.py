"""The rows of metrics.jsonl as a CSV file, for spreadsheets."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from zobench.run.fence import fence_of
from zobench.run.folder import RunFolder
from zobench.run.loggers.base import Plain, Row


class CsvLogger:
    """Writes `metrics.csv` into the run folder: a line per row, a column per metric.

    A row's other columns are empty. The file is written anew when a metric appears for the first
    time, which happens a few times in a run.
    """

    def begin(self, folder: RunFolder, settings: Plain, meta: Plain, rows: Sequence[Row]) -> None:
        del settings, meta
        self._path = folder.path / "metrics.csv"
        self._rows = list(rows)
        self._file = self._renewed()

    def log(self, row: Row) -> None:
        fence_of(self._path.parent).check()
        self._rows.append(row)
        if row.keys() <= set(self._columns):
            csv.DictWriter(self._file, self._columns).writerow(row)
            self._file.flush()
        else:
            self._file.close()
            self._file = self._renewed()

    def end(self, result: Plain) -> None:
        del result
        self._file.close()

    def abort(self) -> None:
        self._file.close()

    def _renewed(self) -> TextIO:
        """The file with all rows so far, open to append."""
        self._columns = list(dict.fromkeys(key for row in self._rows for key in row))
        fence = fence_of(self._path.parent)
        place: Path = fence.place(self._path)
        file = place.open("w", encoding="utf-8", newline="")
        writer = csv.DictWriter(file, self._columns)
        writer.writeheader()
        writer.writerows(self._rows)
        file.flush()
        fence.put(place, self._path)
        return file
