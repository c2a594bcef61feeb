"""The language that tasks are written in: Jinja2 templates and expressions over a row's columns."""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import jinja2
import jinja2.meta

from zobench.errors import UserError
from zobench.tasks.example import Row


def lower_first(text: str) -> str:
    """The first word in lower case, unless it is "I" (MeZO's Copa)."""
    first, space, rest = text.partition(" ")
    return text if first == "I" else first.lower() + space + rest


def upper_first(text: str) -> str:
    """The first letter in upper case, the rest as it is (`capitalize` lowers the rest)."""
    return text[:1].upper() + text[1:]


@lru_cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined, autoescape=False, keep_trailing_newline=True
    )
    environment.filters |= {"lower_first": lower_first, "upper_first": upper_first}
    return environment


class Template:
    """A text with `{{ column }}` in it; `key` is the setting that it came from, for messages."""

    def __init__(self, text: str, key: str) -> None:
        self.text, self.key = text, key
        self._render = _compiled(_environment().from_string, text, key).render

    def check_columns(self) -> None:
        """Raise UserError for a text that is the same for every row."""
        if not jinja2.meta.find_undeclared_variables(_environment().parse(self.text)):
            raise UserError(
                f"{self.key}: {self.text!r} is the same for every row; put a column into it, as in"
                " {{ sentence }}"
            )

    def __call__(self, row: Row, **more: Any) -> str:
        """The text for a row; raises UserError naming the row that does not fit."""
        text: str = _applied(self._render, row, self.key, more)
        return text


class Expression:
    """A value computed from columns, such as `answers.text` or `item in answers`."""

    def __init__(self, text: str, key: str) -> None:
        self.text, self.key = text, key
        compiled = _environment().compile_expression
        self._value = _compiled(lambda t: compiled(t, undefined_to_none=False), text, key)

    def __call__(self, row: Row, **more: Any) -> Any:
        """The value for a row; raises UserError naming the row that does not fit."""
        value = _applied(self._value, row, self.key, more)
        if isinstance(value, jinja2.Undefined):
            raise UserError(
                f"{row.where}: {self.key}: {self.text!r} is not there;"
                f" the row has {', '.join(row.values)}"
            )
        return value


def _compiled(compile: Callable[[str], Any], text: str, key: str) -> Any:
    try:
        return compile(text)
    except jinja2.TemplateError as error:
        raise UserError(f"{key}: {error}") from None


def _applied(function: Callable[..., Any], row: Row, key: str, more: dict[str, Any]) -> Any:
    try:
        return function(row.values | more)
    except Exception as error:  # a template can raise anything
        raise UserError(f"{row.where}: {key}: {error}") from None
