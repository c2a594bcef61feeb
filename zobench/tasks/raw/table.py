"""Comma- and tab-separated tables, with a header or with column names from elsewhere."""

import io
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from zobench.errors import UserError
from zobench.tasks.example import Row
from zobench.tasks.raw.text import lines_of
from zobench.tasks.shown import listed, quoted
from zobench.wide_csv import csv_records

_Records = Iterable[tuple[int, list[str]]]
_DECLARED = re.compile("sep=(.)")  # a line of Excel's, which is no row
_SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "bars", ",": "commas"}


def csv_rows(path: Path, text: str, columns: Sequence[str] | None = None) -> Iterator[Row]:
    """Comma-separated with quoting; a quoted field may span lines.

    columns: names for a file without a header.
    """
    lines = io.StringIO(text, newline="")  # no line end is translated, \r alone is one, too
    yield from _table(csv_records(lines, path), path, columns, ",")


def tsv_rows(path: Path, text: str, columns: Sequence[str] | None = None) -> Iterator[Row]:
    """Tab-separated without quoting, as GLUE ships it: a line is a row.

    columns: names for a file without a header (GLUE's CoLA).
    """
    fields = (line.split("\t") if line else [] for line in lines_of(text))
    yield from _table(enumerate(_without_votes(fields), start=1), path, columns, "\t")


def _without_votes(records: Iterable[list[str]]) -> Iterator[list[str]]:
    """SNLI as GLUE ships it: the header names one annotator's label, some rows have all five."""
    width = None  # of a row with one label, where the table is SNLI's
    for fields in records:
        if fields[-2:] == ["label1", "gold_label"]:
            width = len(fields)
        yield fields[: width - 1] + fields[-1:] if width == len(fields) - 4 else fields


def _table(
    records: _Records, path: Path, columns: Sequence[str] | None, separator: str
) -> Iterator[Row]:
    """Rows of numbered records, the first of which names the columns; blank lines are skipped."""
    header = list(columns or [])
    source = "task.source.columns" if header else "the header"
    unnamed: set[str] = set()
    first = True
    for line, fields in records:
        where = f"{path}:{line}"
        if not fields:
            continue
        if line == 1 and (declared := _DECLARED.fullmatch(separator.join(fields))):
            _check_declared(declared[1], where, separator)
            continue
        if first and fields == header:  # columns of a file that names them itself
            first = False
            continue
        first = False
        if not header:
            header, unnamed = fields, _unnamed(fields, where)
            _check_separator(header, where, separator)
        elif len(fields) != len(header):
            raise UserError(
                f"{where}: {len(fields)} fields where {source} names {len(header)}"
                f" ({listed(header)})"
            )
        else:
            pairs = zip(header, fields, strict=True)
            yield Row({name: text for name, text in pairs if name not in unnamed}, where)
    if not header:
        raise UserError(f"{path}: the file is empty; expected a header line")


def _check_declared(declared: str, where: str, separator: str) -> None:
    """Raise UserError where Excel's line `sep=;` declares another separator."""
    if declared != separator:
        raise UserError(
            f"{where}: sep={declared} declares that columns end with"
            f" {_SEPARATORS.get(declared, repr(declared))}"
            f", of a file with {_SEPARATORS[separator]} between columns: {_way(declared)}"
        )


def _way(separator: str) -> str:
    ending = {"\t": ".tsv", ",": ".csv"}.get(separator)
    return f"give its name the ending {ending}" if ending else "convert it to commas"


def _unnamed(header: Sequence[str], where: str) -> set[str]:
    """The names of several columns that are blank, whose cells no template can name."""
    twice = {name for name, count in Counter(header).items() if count > 1}
    if named := [name for name in header if name in twice and name.strip()]:
        raise UserError(
            f"{where}: the header names a column twice ({listed(header)}): {quoted(named[0])}"
        )
    return twice


def _check_separator(header: Sequence[str], where: str, separator: str) -> None:
    """Raise UserError for a header of one column that other separators would cut."""
    if len(header) > 1:
        return
    for other, name in _SEPARATORS.items():
        if other in header[0]:
            raise UserError(
                f"{where}: the header is one column, {quoted(header[0])}, of a file with"
                f" {_SEPARATORS[separator]} between columns; it seems to have {name}: {_way(other)}"
            )
