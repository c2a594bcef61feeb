"""Comma- and tab-separated tables, with a header or with column names from elsewhere."""

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from zobench.errors import UserError
from zobench.tasks.example import Row

_Records = Iterable[tuple[int, list[str]]]


def csv_rows(path: Path, text: str, columns: Sequence[str] | None = None) -> Iterator[Row]:
    """Comma-separated with quoting; a quoted field may span lines.

    columns: names for a file without a header.
    """
    reader = csv.reader(io.StringIO(text), strict=True)

    def records() -> Iterator[tuple[int, list[str]]]:
        first = 1  # line that the record begins on
        try:
            for fields in reader:
                yield first, fields
                first = reader.line_num + 1
        except csv.Error as error:
            raise UserError(f"{path}:{first}: {error}") from None

    yield from _table(records(), path, columns)


def tsv_rows(path: Path, text: str, columns: Sequence[str] | None = None) -> Iterator[Row]:
    """Tab-separated without quoting, as GLUE ships it: a line is a row.

    columns: names for a file without a header (GLUE's CoLA).
    """
    lines = (line.removesuffix("\r") for line in text.split("\n"))
    fields = (line.split("\t") if line else [] for line in lines)
    yield from _table(enumerate(_without_votes(fields), start=1), path, columns)


def _without_votes(records: Iterable[list[str]]) -> Iterator[list[str]]:
    """SNLI as GLUE ships it: the header names one annotator's label, some rows have all five."""
    width = None  # of a row with one label, where the table is SNLI's
    for fields in records:
        if fields[-2:] == ["label1", "gold_label"]:
            width = len(fields)
        yield fields[: width - 1] + fields[-1:] if width == len(fields) - 4 else fields


def _table(records: _Records, path: Path, columns: Sequence[str] | None = None) -> Iterator[Row]:
    """Rows of numbered records, the first of which names the columns; blank lines are skipped."""
    header = list(columns or [])
    source = "task.source.columns" if header else "the header"
    for line, fields in records:
        where = f"{path}:{line}"
        if not fields:
            continue
        if not header:
            header = fields
            if len(set(header)) < len(header):
                raise UserError(f"{where}: the header names a column twice ({', '.join(header)})")
        elif len(fields) != len(header):
            raise UserError(
                f"{where}: {len(fields)} fields where {source} names {len(header)}"
                f" ({', '.join(header)})"
            )
        else:
            yield Row(dict(zip(header, fields, strict=True)), where)
    if not header:
        raise UserError(f"{path}: the file is empty; expected a header line")
