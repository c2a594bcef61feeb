"""The output of templates: texts, numbers and dates, and operations on them."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jinja2
from jinja2.sandbox import SandboxedFormatter

from zobench.tasks.cells import WORDS, Named, called, finite

MOST = 10**6  # characters or items that an operation makes of its arguments; cells have any length
_SIGNS = re.compile(r"%(?:\(.*?\))?[#0\- +]*(\*|\d*)(?:\.(\*|\d*))?[hlL]?(.)", re.DOTALL)
_DIGITS = re.compile(r"\d{4,}")


class Method:
    """A method of a text, which must be called."""

    def __init__(self, name: str, function: Callable[..., Any]) -> None:
        self._name, self._function = name, function
        self._text = getattr(function, "__self__", None)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self._name in ("center", "ljust", "rjust", "zfill", "expandtabs"):
            bounded(*args, *kwargs.values())
        if self._name in ("replace", "join"):
            check_growth(self._name, self._text, *args, **kwargs)
        return self._function(*args, **kwargs)

    def __str__(self) -> str:
        raise jinja2.TemplateRuntimeError(
            f".{self._name} is a method here; call it, as in .{self._name}()"
        )


def written(value: Any) -> Any:
    """What `{{ value }}` writes: a text, a number or a date; raises for anything else."""
    if isinstance(value, WORDS) and finite(value):
        return value
    if type(value) is jinja2.Undefined:  # `{{ a if b }}` where b does not hold
        return ""
    if isinstance(value, jinja2.Undefined | Named | Method):
        str(value)  # raises: these know their names
    raise jinja2.TemplateRuntimeError(f"{{{{ ... }}}} gives {called(value)}, which is no text")


def bounded(*widths: Any) -> None:
    """Raise for a width that makes a text unreasonably long."""
    if large := [w for w in widths if isinstance(w, int) and w > MOST]:
        raise jinja2.TemplateRuntimeError(f"a width of {large[0]:.0e} is more than {MOST:,}")


class _WrittenValues(dict[str, Any]):
    """The values of a mapping, each of which is a text, a number or a date where it is read."""

    def __getitem__(self, key: str) -> Any:
        return written(super().__getitem__(key))


def percent(text: str, values: Any) -> str:
    """`text % values`, of values that `{{ ... }}` writes, too."""
    for width, precision, kind in _SIGNS.findall(text):
        if kind in "ra":
            raise jinja2.TemplateRuntimeError(f"%{kind} writes Python's signs; %s writes the text")
        if "*" in (width, precision):
            raise jinja2.TemplateRuntimeError("a width of * is not read; give the number")
        bounded(*(int(size[:20]) for size in (width, precision) if size))
    if isinstance(values, Mapping) and "%(" in text:
        return text % _WrittenValues(values)
    if isinstance(values, tuple):
        return text % tuple(map(written, values))
    return text % (written(values),)


class Format(SandboxedFormatter):
    """`text.format(...)`, of values that `{{ ... }}` writes, too."""

    def convert_field(self, value: Any, conversion: Any) -> Any:
        if conversion in ("r", "a"):
            raise jinja2.TemplateRuntimeError(
                f"!{conversion} writes Python's signs; without it the text is written"
            )
        return super().convert_field(written(value), conversion)

    def format_field(self, value: Any, format_spec: str) -> Any:
        bounded(*(int(digits[:20]) for digits in _DIGITS.findall(format_spec)))
        return super().format_field(written(value), format_spec)


def check_growth(
    name: str, text: Any, *args: Any, old: Any = None, new: Any = None, count: Any = None
) -> None:
    """Raise for a `replace` or `join` that makes a text unreasonably long."""
    del count  # of replacements: all of them are the most
    old, new = [*args, *(word for word in (old, new) if word is not None), None, None][:2]
    long = 0
    if name == "replace" and new is not None:
        long = str(text).count(str(old)) * len(str(new))
    elif name == "join" and isinstance(old, Sequence):
        long = len(str(text)) * len(old)
    if long > 100 * MOST:
        raise jinja2.TemplateRuntimeError(f"{name} makes a text of more than {100 * MOST:,}")


def product(left: Any, right: Any) -> Any:
    """`left * right`, unless it makes a text or a list unreasonably long."""
    for many, times in ((left, right), (right, left)):
        long = len(many) if isinstance(many, Sequence) else 0
        if long and isinstance(times, int) and long * times > MOST:
            raise jinja2.TemplateRuntimeError(
                f"{called(many)} times {called(times)} is longer than {MOST:,}"
            )
    return left * right


def power(left: Any, right: Any) -> Any:
    """`left ** right`, unless the result has too many digits."""
    if isinstance(left, int) and isinstance(right, int) and left.bit_length() * right > MOST:
        raise jinja2.TemplateRuntimeError(
            f"{called(left)} ** {called(right)} has more digits than are written"
        )
    return left**right
