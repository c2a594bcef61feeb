"""JSON files of one document: rows in one of the forms that pandas and others write."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from zobench.errors import UserError
from zobench.tasks.example import Row
from zobench.tasks.raw import drop_json, squad_json
from zobench.tasks.raw.fields import field
from zobench.tasks.shown import brief, listed

_FORMS = (
    "a list of objects, an object of objects or of columns, {columns, data}, a list under one key,"
    " or an object a line (.jsonl)"
)

_INDEX = re.compile(r"-?\d+(\.\d+)?(e[+-]?\d+)?|\d{4}-\d\d-\d\d([T ].*)?", re.IGNORECASE)

_Entries = Iterator[tuple[object, Any]]


def document_rows(document: Any, path: Path) -> Iterator[Row]:
    """Rows of a document in any known form; UserError lists the known forms."""
    for form in (squad_json, drop_json):
        if form.recognised(document):
            yield from form.rows(document, str(path))
            return
    for name, row in _entries(document, path):
        where = f"{path}: entry {brief(name)}"
        if not isinstance(row, dict):
            raise UserError(f"{where} is not a JSON object but {_kind(row)}; read are {_FORMS}")
        yield Row(row, where)


def _entries(document: Any, path: Path) -> _Entries:
    """Entries with the number (from 1) or the name by which messages call them."""
    if isinstance(document, dict):
        for form in (_split, _columns_of_lists, _wrapped, _columns_of_objects):
            found = form(document, str(path))
            if found is not None:
                yield from found
                return
        if any(isinstance(value, dict) for value in document.values()):
            yield from document.items()
            return
        raise UserError(
            f"{path}: expected a JSON list of objects, found dict with"
            f" {listed(document) or 'nothing'}; read are {_FORMS}"
        )
    if not isinstance(document, list):
        raise UserError(f"{path}: expected a JSON list of objects, found {_kind(document)}")
    yield from enumerate(document, start=1)


def _split(document: Mapping[str, Any], where: str) -> _Entries | None:
    """pandas' orient=split: names of columns, and rows as lists."""
    names, rows = document.get("columns"), document.get("data")
    if not (isinstance(names, list) and isinstance(rows, list)):
        return None
    if len({*map(str, names)}) < len(names):
        raise UserError(f"{where}: 'columns' names a column twice ({listed(names)})")

    def entries() -> _Entries:
        for number, row in enumerate(rows, start=1):
            if not isinstance(row, list) or len(row) != len(names):
                found = f"{len(row)} values" if isinstance(row, list) else _kind(row)
                raise UserError(
                    f"{where}: entry {number}: {found} where 'columns' names {len(names)}"
                    f" ({listed(names)})"
                )
            yield number, dict(zip(map(str, names), row, strict=True))

    return entries()


def _wrapped(document: Mapping[str, Any], where: str) -> _Entries | None:
    """Rows in the only list (of objects) that there is, as in {"data": [...], "version": 1}."""
    lists = {key: value for key, value in document.items() if isinstance(value, list)}
    if "features" in document and "rows" in lists:
        return _viewed(lists["rows"], where)
    rows = {key: value for key, value in lists.items() if _objects(value)} or lists
    if len(rows) > 1:
        raise UserError(
            f"{where}: several lists of objects, under {listed(rows)}; write each split to a file"
            " of its own, such as train.json and test.json"
        )
    return enumerate(next(iter(rows.values())), start=1) if rows else None


def _viewed(rows: Sequence[Any], where: str) -> _Entries:
    """Rows as the hub's viewer returns them, each under `row`."""
    for number, entry in enumerate(rows, start=1):
        spot = f"{where}: entry {number}"
        row = field(entry, "row", dict, spot)
        if cut := entry.get("truncated_cells"):
            raise UserError(f"{spot}: the viewer has cut {listed(cut)}; load the data set itself")
        yield number, row


def _columns_of_lists(document: Mapping[str, Any], where: str) -> _Entries | None:
    """A list for each of several columns, all equally long."""
    columns = list(document.values())
    if len(columns) < 2 or not all(isinstance(column, list) for column in columns):
        return None
    lengths = {key: len(column) for key, column in document.items()}
    objects = sum(map(_objects, columns))
    if len({*lengths.values()}) > 1 and not objects:
        counts = listed(f"{key} has {count}" for key, count in lengths.items())
        raise UserError(f"{where}: the columns are not equally long ({counts})")
    if len({*lengths.values()}) > 1 or objects == len(columns):
        return None
    rows = zip(*columns, strict=True)
    return ((n, dict(zip(document, row, strict=True))) for n, row in enumerate(rows, start=1))


def _columns_of_objects(document: Mapping[str, Any], where: str) -> _Entries | None:
    """pandas' default, orient=columns: cells by the number, date or name of their row."""
    del where
    columns = list(document.values())
    if not columns or not all(isinstance(column, dict) and column for column in columns):
        return None
    index = columns[0].keys()
    if any(column.keys() != index for column in columns):
        return None
    if _counted(document) or not (_counted(index) or _tall(columns)):
        return None
    return ((name, {key: column[name] for key, column in document.items()}) for name in index)


def _counted(names: Iterable[str]) -> bool:
    """Whether the names are those of rows, by number or date, and not of columns."""
    return all(_INDEX.fullmatch(name) for name in names)


def _tall(columns: Sequence[Mapping[str, Any]]) -> bool:
    """Whether several columns of plain cells have more rows than there are columns."""
    plain = all(not isinstance(cell, dict | list) for column in columns for cell in column.values())
    return 1 < len(columns) < len(columns[0]) and plain


def _objects(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(v, dict) for v in value)


def _kind(value: Any) -> str:
    return "null" if value is None else type(value).__name__
