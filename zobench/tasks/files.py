"""Reading rows from a user's files, by their ending: jsonl, json, csv, tsv, label, parquet.

All but parquet may be gzipped. The formats of single data sets are in `raw/`.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from zobench.errors import UserError
from zobench.tasks.example import Row
from zobench.tasks.raw.json_forms import document_rows
from zobench.tasks.raw.json_text import parsed
from zobench.tasks.raw.parallel import parallel_files, parallel_rows
from zobench.tasks.raw.parquet import parquet_rows
from zobench.tasks.raw.table import csv_rows, tsv_rows
from zobench.tasks.raw.text import lines_of, text_of
from zobench.tasks.raw.trec import trec_rows

__all__ = ["ENDINGS", "READERS", "find", "in_folder", "parts", "read"]


def _jsonl(path: Path, text: str) -> Iterator[Row]:
    for number, line in enumerate(lines_of(text), start=1):
        if not line.strip():
            continue
        where = f"{path}:{number}"
        if number == 1 and line.strip() == "[":
            raise UserError(f"{where}: a JSON list begins here; its file has the ending .json")
        row = parsed(line, where)
        if not isinstance(row, dict):
            raise UserError(f"{where}: expected a JSON object, found {type(row).__name__}")
        yield Row(row, where)


def _json(path: Path, text: str) -> Iterator[Row]:
    """One document, or an object a line, which many programs give this ending, too."""
    first, *rest = [line for line in lines_of(text) if line.strip()] or [""]
    if rest and first.lstrip().startswith("{") and first.rstrip().endswith("}"):
        with suppress(ValueError, RecursionError):
            json.loads(first)
            return _jsonl(path, text)
    return document_rows(parsed(text, str(path), lines=True), path)


READERS: dict[str, Callable[[Path, str], Iterator[Row]]] = {  # formats that are text
    "jsonl": _jsonl,
    "json": _json,
    "csv": csv_rows,
    "tsv": tsv_rows,
    "label": trec_rows,
}
ENDINGS = [f".{ending}{zipped}" for ending in READERS for zipped in ("", ".gz")] + [".parquet"]


def read(
    path: Path, columns: Sequence[str] | None = None, encoding: str | None = None
) -> list[Row]:
    """Rows of one file; raises UserError naming file and line when a row is malformed.

    columns: names for a csv or tsv file without a header. encoding: of its text; None is UTF-8,
    and latin-1 for .label files.
    """
    rows = list(_rows(path, columns, encoding))
    if not rows:
        raise UserError(f"{path}: the file holds no rows")
    return rows


def parts(path: Path) -> list[Path]:
    """The files that `read` reads for this one: of parallel files, each column's."""
    name = path.name.lower()
    kind = name.removesuffix(".gz").rsplit(".", 1)[-1]
    whole = kind in READERS or name.endswith(".parquet")
    return [path] if whole or not path.name.startswith("s1.") else parallel_files(path)


def _rows(path: Path, columns: Sequence[str] | None, encoding: str | None) -> Iterable[Row]:
    name = path.name.lower()
    ending = name.removesuffix(".gz").rsplit(".", 1)[-1]
    if name.endswith(".parquet"):
        return parquet_rows(path)
    if ending in READERS:
        text = text_of(path, encoding or ("latin-1" if ending == "label" else "utf-8"))
        if ending in ("csv", "tsv"):
            return (csv_rows if ending == "csv" else tsv_rows)(path, text, columns)
        return READERS[ending](path, text)
    if path.name.startswith("s1."):
        return parallel_rows(path, encoding or "utf-8")
    raise UserError(f"{path}: cannot read this kind of file, only {_kinds()}")


def in_folder(folder: Path, stems: Sequence[str]) -> Path | None:
    """The first of `stems` in the folder with a known ending, or as `s1.STEM`; None if none is."""
    for stem in stems:
        names = [stem + ending for ending in ENDINGS] + [f"s1.{stem}", f"s1.{stem}.gz"]
        for name in names:
            if (folder / name).is_file():
                return folder / name
    return None


def find(folder: Path, stems: Sequence[str]) -> Path:
    """The file of one split in a folder.

    Raises UserError naming the folder and the file names that were looked for.
    """
    if not folder.is_dir():
        raise UserError(f"task.data_dir={folder}: no such folder")
    path = in_folder(folder, stems)
    if path is None:
        raise UserError(
            f"task.data_dir={folder}: no {' or '.join(stems)} file with the ending {_kinds()}"
        )
    return path


def _kinds() -> str:
    return f"{', '.join(READERS)} (or one of them with .gz) or parquet"
