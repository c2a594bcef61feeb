"""Taking a nested JSON object apart with a message for what is missing."""

from typing import Any, TypeVar

from zobench.errors import UserError
from zobench.tasks.example import Row
from zobench.tasks.shown import listed

T = TypeVar("T")


def field(values: Any, name: str, kind: type[T], where: str) -> T:
    """`values[name]`; UserError saying where, if there is none or it is of another type."""
    if not isinstance(values, dict):
        raise UserError(f"{where}: expected a JSON object, found {type(values).__name__}")
    if name not in values:
        raise UserError(f"{where}: no {name!r} (there is {listed(values) or 'nothing'})")
    value = values[name]
    if not isinstance(value, kind):
        expected = {dict: "a JSON object", list: "a list", str: "a text", int: "a whole number"}
        raise UserError(
            f"{where}: {name!r} is {type(value).__name__}, expected {expected.get(kind, kind)}"
        )
    return value


def has(row: Row, *columns: str) -> bool:
    """Whether a row has the hub's columns already, so that a shaper leaves it alone."""
    return all(column in row.values for column in columns)
