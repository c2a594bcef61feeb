"""Parquet files, as the hub stores them."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from zobench.errors import UserError
from zobench.tasks.cells import Unreadable
from zobench.tasks.example import Row
from zobench.tasks.shown import brief, listed

_SHORT = re.compile(r"\b(half)?float\b")  # types of fewer bits than Python's numbers have


def parquet_rows(path: Path) -> Iterator[Row]:
    """Rows with the file's columns; nested columns become dictionaries and lists.

    A cell that Python cannot hold is refused where it is read.
    """
    import pyarrow  # heavy, and needed for these files only
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(path)
        names = table.column_names
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{path}: not a readable parquet file ({reason[:120]})") from None
    if len({*names}) < len(names):
        raise UserError(f"{path}: a column comes twice ({listed(names)})")
    columns = [_cells(column) for column in table.columns]
    for number in range(table.num_rows):
        values = {name: cells[number] for name, cells in zip(names, columns, strict=True)}
        yield Row(values, f"{path}: row {number + 1}")


def _cells(column: Any) -> list[Any]:
    try:
        cells = column.to_pylist()
    except Exception:  # years, time zones, bytes and names that Python has no value for
        cells = [_cell(cell) for cell in column]
    return shortest(column.type, cells)


def _cell(cell: Any) -> Any:
    try:
        return cell.as_py()
    except Exception as error:
        reason = (str(error).splitlines() or [""])[0] or type(error).__name__
        return Unreadable(f"{cell.type}: {brief(reason, 100)}")


def shortest(kind: Any, cells: list[Any]) -> list[Any]:
    """The cells of an arrow type with numbers of 32 and 16 bits by the digits that they have."""
    if not _SHORT.search(str(kind)):
        return cells
    short = _shortest(kind)
    return [cell if isinstance(cell, Unreadable) else short(cell) for cell in cells]


def _shortest(kind: Any) -> Callable[[Any], Any]:
    """What makes the shortest decimals of numbers of 32 and 16 bits, wherever the type has them."""
    import numpy
    from pyarrow import types

    def of(change: Callable[[Any], Any]) -> Callable[[Any], Any]:
        return lambda value: None if value is None else change(value)

    if types.is_float32(kind) or types.is_float16(kind):
        narrow = numpy.float32 if types.is_float32(kind) else numpy.float16
        return of(lambda value: float(str(narrow(value))))
    if types.is_dictionary(kind):
        return _shortest(kind.value_type)
    if types.is_map(kind):
        key, item = _shortest(kind.key_type), _shortest(kind.item_type)
        return of(lambda pairs: [(key(k), item(v)) for k, v in pairs])
    if types.is_struct(kind):
        fields = {field.name: _shortest(field.type) for field in kind}
        return of(lambda value: {name: fields[name](v) for name, v in value.items()})
    if types.is_nested(kind) and hasattr(kind, "value_type"):
        item = _shortest(kind.value_type)
        return of(lambda values: [*map(item, values)])
    return lambda value: value
