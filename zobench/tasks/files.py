"""Reading rows from a user's files, by their ending: jsonl, json, csv, tsv, label, parquet.

All but parquet may be gzipped. What the formats look like inside is in `raw/`.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from zobench.errors import UserError
from zobench.tasks.example import Row
from zobench.tasks.raw.json_forms import json_rows
from zobench.tasks.raw.parallel import parallel_files, parallel_rows
from zobench.tasks.raw.parquet import parquet_rows
from zobench.tasks.raw.table import csv_rows, tsv_rows
from zobench.tasks.raw.text import text_of
from zobench.tasks.raw.trec import trec_rows

__all__ = ["ENDINGS", "READERS", "find", "in_folder", "parts", "read", "text_of"]


def _jsonl(path: Path, text: str) -> Iterator[Row]:
    for number, line in enumerate(text.split("\n"), start=1):  # splitlines knows other line ends
        if line.strip():
            yield Row(_object(line, f"{path}:{number}"), f"{path}:{number}")


def _object(line: str, where: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise UserError(f"{where}: not valid JSON ({error.msg})") from None
    except (RecursionError, ValueError) as error:  # nested too deep; a number of 5,000 digits
        raise UserError(f"{where}: not readable JSON ({str(error)[:80]})") from None
    if not isinstance(row, dict):
        raise UserError(f"{where}: expected a JSON object, found {type(row).__name__}")
    return row


READERS: dict[str, Callable[[Path, str], Iterator[Row]]] = {  # formats that are text
    "jsonl": _jsonl,
    "json": json_rows,
    "csv": csv_rows,
    "tsv": tsv_rows,
    "label": trec_rows,
}
ENDINGS = [f".{ending}{zipped}" for ending in READERS for zipped in ("", ".gz")] + [".parquet"]


def read(path: Path, columns: Sequence[str] | None = None) -> list[Row]:
    """Rows of one file; raises UserError naming file and line when a row is malformed.

    columns: names for a csv or tsv file without a header.
    """
    rows = list(_rows(path, columns))
    if not rows:
        raise UserError(f"{path}: the file holds no rows")
    return rows


def parts(path: Path) -> list[Path]:
    """The files that `read` reads for this one: of parallel files, each column's."""
    kind = path.name.removesuffix(".gz").rsplit(".", 1)[-1]
    whole = kind in READERS or path.name.endswith(".parquet")
    return [path] if whole or not path.name.startswith("s1.") else parallel_files(path)


def _rows(path: Path, columns: Sequence[str] | None) -> Iterable[Row]:
    ending = path.name.removesuffix(".gz").rsplit(".", 1)[-1]
    if path.name.endswith(".parquet"):
        return parquet_rows(path)
    if ending in ("csv", "tsv"):
        return (csv_rows if ending == "csv" else tsv_rows)(path, text_of(path), columns)
    if ending in READERS:
        return READERS[ending](path, text_of(path, "latin-1" if ending == "label" else "utf-8"))
    if path.name.startswith("s1."):
        return parallel_rows(path)
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
