"""Reading rows from a user's files: jsonl, json, csv and tsv, gzipped or not."""

import csv
import gzip
import io
import json
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from zobench.errors import UserError
from zobench.tasks.example import Row


def _jsonl(text: str, path: Path) -> Iterator[Row]:
    for number, line in enumerate(text.split("\n"), start=1):  # splitlines knows other line ends
        if line.strip():
            yield Row(_object(line, f"{path}:{number}"), f"{path}:{number}")


def _json(text: str, path: Path) -> Iterator[Row]:
    try:
        rows = json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(f"{path}:{error.lineno}: not valid JSON ({error.msg})") from None
    if not isinstance(rows, list):
        raise UserError(f"{path}: expected a JSON list of objects, found {type(rows).__name__}")
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict):
            raise UserError(f"{path}: entry {number} is not a JSON object")
        yield Row(row, f"{path}: entry {number}")


def _object(line: str, where: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise UserError(f"{where}: not valid JSON ({error.msg})") from None
    if not isinstance(row, dict):
        raise UserError(f"{where}: expected a JSON object, found {type(row).__name__}")
    return row


def _csv(text: str, path: Path) -> Iterator[Row]:
    """Comma-separated with a header and quoting; a quoted field may span lines."""
    reader = csv.reader(io.StringIO(text), strict=True)

    def records() -> Iterator[tuple[int, list[str]]]:
        first = 1  # line that the record begins on
        try:
            for fields in reader:
                yield first, fields
                first = reader.line_num + 1
        except csv.Error as error:
            raise UserError(f"{path}:{first}: {error}") from None

    yield from _table(records(), path)


def _tsv(text: str, path: Path) -> Iterator[Row]:
    """Tab-separated with a header and no quoting, as GLUE ships it: a line is a row."""
    lines = (line.removesuffix("\r") for line in text.split("\n"))
    fields = (line.split("\t") if line else [] for line in lines)
    yield from _table(enumerate(fields, start=1), path)


def _table(records: Iterable[tuple[int, list[str]]], path: Path) -> Iterator[Row]:
    """Rows of numbered records, the first of which names the columns; blank lines are skipped."""
    header: list[str] = []
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
                f"{where}: {len(fields)} fields where the header names {len(header)}"
                f" ({', '.join(header)})"
            )
        else:
            yield Row(dict(zip(header, fields, strict=True)), where)
    if not header:
        raise UserError(f"{path}: the file is empty; expected a header line")


READERS: dict[str, Callable[[str, Path], Iterator[Row]]] = {
    "jsonl": _jsonl,
    "json": _json,
    "csv": _csv,
    "tsv": _tsv,
}


def text_of(path: Path) -> str:
    """A UTF-8 file's text, gzipped or not; UserError where it is neither."""
    data = path.read_bytes()
    try:
        if path.suffix == ".gz":
            data = gzip.decompress(data)
        return data.decode("utf-8-sig")  # spreadsheets put a byte-order mark first
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path}: not a readable gzip file ({error})") from None
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise UserError(f"{path}:{line}: not UTF-8 text") from None


def read(path: Path) -> list[Row]:
    """Rows of one file; raises UserError naming file and line when a row is malformed."""
    ending = path.name.removesuffix(".gz").rsplit(".", 1)[-1]
    rows = list(READERS[ending](text_of(path), path))
    if not rows:
        raise UserError(f"{path}: the file holds no rows")
    return rows


def find(folder: Path, stems: Sequence[str]) -> Path:
    """The file of one split in a folder: the first of `stems` with a known ending.

    Raises UserError naming the folder and the file names that were looked for.
    """
    if not folder.is_dir():
        raise UserError(f"task.data_dir={folder}: no such folder")
    for stem in stems:
        for ending in READERS:
            for name in (f"{stem}.{ending}", f"{stem}.{ending}.gz"):
                if (folder / name).is_file():
                    return folder / name
    raise UserError(
        f"task.data_dir={folder}: no {' or '.join(stems)} file with the ending"
        f" {', '.join(READERS)} (or one of them with .gz)"
    )
