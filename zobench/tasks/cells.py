"""The values of a row in templates: only texts, numbers and dates become text."""

import datetime
import math
import numbers
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any

import jinja2

from zobench.tasks.shown import brief, listed, nfc, quoted, visible

WORDS = (str, bool, numbers.Number, datetime.date, datetime.time)  # what a template writes
WHOLE_ROW = "row"  # the name under which a template has all columns
_CONVERSATION = "; task=messages reads conversations"
SELF = "column__self"  # a template's name for the column `self`, a word of Jinja's


class Null(jinja2.StrictUndefined):
    """A cell that is null, or NaN or infinite: any use of it raises an error.

    `default(...)` replaces it, `is none` and `== none` recognise it.
    """

    def __eq__(self, other: object) -> bool:  # type: ignore[override]
        if other is None or isinstance(other, Null):
            return True
        self._fail_with_undefined_error()

    def __ne__(self, other: object) -> bool:  # type: ignore[override]
        return not self == other

    def __abs__(self) -> Any:
        self._fail_with_undefined_error()

    __hash__ = jinja2.StrictUndefined.__hash__  # type: ignore[assignment]


class Unreadable:
    """A cell of a file that Python has no value for; it is refused where it is read."""

    def __init__(self, reason: str) -> None:
        self.reason = reason

    def __repr__(self) -> str:
        return f"not readable ({self.reason})"


class Named:
    """Data that is no text; `path` is its name in templates."""

    kind = ""
    path = ""

    def __str__(self) -> str:
        what = f"column {self.path} is {self.kind}, not a text{self.hint()}"
        raise jinja2.TemplateRuntimeError(what)

    def hint(self) -> str:
        return ""


class Object(Named, dict[str, Any]):
    """An object of JSON, a struct of parquet; `{{ a.b }}` is its item b and nothing else."""

    kind = "an object"

    def hint(self) -> str:
        return _CONVERSATION if is_message(self) else f"; it has {listed(self)}" if self else ""


class List(Named, list[Any]):
    """A list: `{{ a[0] }}`, `{{ a | join(", ") }}`."""

    kind = "a list"

    def hint(self) -> str:
        if any(map(is_message, self)):
            return _CONVERSATION
        return f"; write {{{{ {self.path}[0] }}}} or {{{{ {self.path} | join(', ') }}}}"


class Bytes(Named, bytes):
    """Binary data, which only `decode` makes a text of."""

    kind = "bytes"

    def hint(self) -> str:
        return f"; if it is UTF-8, write {{{{ {self.path}.decode() }}}}"


def seen(value: Any, path: str) -> Any:
    """The value, and its items, as templates see them; texts and numbers are unchanged."""
    if value is None:
        return _null(path, "null")
    if not finite(value):
        return _null(path, f"{value}, which is no number")
    if isinstance(value, Unreadable):
        return jinja2.StrictUndefined(hint=f"column {path} is {value!r}")
    if isinstance(value, (*WORDS, Named, jinja2.Undefined)):
        return value
    made: Any = value
    if isinstance(value, Mapping):
        made = Object({k: seen(v, f"{path}.{k}") for k, v in value.items()})
    elif isinstance(value, list | tuple):
        made = List([seen(v, f"{path}[{i}]") for i, v in enumerate(value)])
    elif isinstance(value, bytes | bytearray | memoryview):
        made = Bytes(value)
    if isinstance(made, Named):
        made.path = path
    return made


def context(values: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """The columns of these names as templates see them, and `row` for all of them."""
    found: dict[str, Any] = {}
    for name in names:
        column = named(values, "self" if name == SELF else name)
        if column is not None:
            found[name] = seen(values[column], visible(column))
        elif name == WHOLE_ROW:
            row = {key: seen(value, visible(key)) for key, value in values.items()}
            found[name] = Object(row)
            found[name].path = WHOLE_ROW
    return found


def named(values: Mapping[str, Any], name: str) -> str | None:
    """The column of this name, also where its accents are composed otherwise; None without one."""
    if name in values:
        return name
    normal = nfc(name)
    if normal.isascii():
        return None
    return next((key for key in values if nfc(str(key)) == normal), None)


def is_message(value: Any) -> bool:
    """Whether it is a message of a conversation, by its keys."""
    return isinstance(value, Mapping) and {"role", "content"} <= value.keys()


def finite(value: Any) -> bool:
    """False for NaN and the infinities."""
    if isinstance(value, Decimal):
        return value.is_finite()
    return not isinstance(value, float) or math.isfinite(value)


def called(value: Any) -> str:
    """The name of an unexpected value in messages."""
    if isinstance(value, str):
        return quoted(value)
    if value is None or isinstance(value, Null):
        return "null"
    if isinstance(value, (*WORDS, Unreadable)):
        return brief(value, 150 if isinstance(value, Unreadable) else 60)
    kinds = ((Mapping, "an object"), (list | tuple, "a list"), (bytes, "bytes"))
    return next((kind for of, kind in kinds if isinstance(value, of)), f"a {type(value).__name__}")


def _null(path: str, what: str) -> Null:
    way = f"fill it in, remove the row, or give a default: {path} | default('')"
    return Null(hint=f"column {path} is {what}; {way}")
