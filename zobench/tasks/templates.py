"""What tasks are written in: templates and expressions over a row's columns."""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

import jinja2
import jinja2.meta
from jinja2 import nodes

from zobench.errors import UserError
from zobench.tasks.cells import SELF, WHOLE_ROW, WORDS, called, context, named
from zobench.tasks.example import Row
from zobench.tasks.language import HELPERS, environment, helpers
from zobench.tasks.shown import brief, listed, quoted
from zobench.tasks.written import written

T = TypeVar("T")

_ESCAPE = re.compile(r"\\[nrt]")
_CONSTANTS = ("none", "true", "false", "None", "True", "False")
_HALF = re.compile("[\ud800-\udfff]")  # of a character: JSON can spell it, no text can hold it
_PRINTED = re.compile(r"\{\{-?\s*([^{}|()\[\]'\"]+?)\s*-?\}\}")  # names alone


class Template:
    """A text with `{{ column }}` in it; `key` is the setting that it came from, for messages."""

    def __init__(self, text: str, key: str) -> None:
        self.text, self.key = _text(text, key), key
        made, self._names, tree = _compiled(environment().from_string, text, text, key)
        self._render = made.render
        for data in tree.find_all(nodes.TemplateData):
            refuse_escapes(data.data, key, "{{ '\\\\' }}")

    def check_columns(self) -> None:
        """Raise UserError for a text that is the same for every row."""
        if not self._names.difference(_CONSTANTS):
            raise UserError(
                f"{self.key}: {quoted(self.text)} is the same for every row; put a column into it,"
                " as in {{ sentence }}"
            )

    def __call__(self, row: Row, **more: Any) -> str:
        """The text for a row; raises UserError naming the row that does not fit."""

        def text(values: Mapping[str, Any]) -> str:
            return _whole(self._render(values))

        return _applied(text, row, self.key, self._names, more)


class Expression:
    """A value computed from columns, such as `answers.text` or `item in answers`."""

    def __init__(self, text: str, key: str) -> None:
        self.text, self.key = _text(text, key), key

        def compiled(text: str) -> Any:
            return environment().compile_expression(text, undefined_to_none=False)

        self._value, self._names, _ = _compiled(compiled, text, f"{{{{ {text} }}}}", key)

    def texts(self, row: Row) -> tuple[str, ...]:
        """A text or number, or those of a list, as texts; UserError names a row without."""

        def found(value: Any) -> tuple[str, ...]:
            several = not isinstance(value, WORDS) and _is_list(value)
            return tuple(_whole(str(written(item))) for item in (value if several else [value]))

        return self._applied(found, row, {})

    def items(self, row: Row) -> list[Any]:
        """The items of a list; UserError names a row without one."""

        def found(value: Any) -> list[Any]:
            if not _is_list(value):
                raise UserError(f"{brief(self.text)} is {called(value)}, expected a list")
            return list(value)

        return self._applied(found, row, {})

    def holds(self, row: Row, **more: Any) -> bool:
        """Whether it does; UserError for a row where it is neither true nor false."""

        def found(value: Any) -> bool:
            if not isinstance(value, bool | int):
                raise UserError(f"{brief(self.text)} is {called(value)}, expected true or false")
            return bool(value)

        return self._applied(found, row, more)

    def _applied(self, read: Callable[[Any], T], row: Row, more: Mapping[str, Any]) -> T:
        def value(values: Mapping[str, Any]) -> T:
            found = self._value(values)
            if isinstance(found, jinja2.Undefined):
                str(found)  # raises: it knows what is missing
            return read(found)

        return _applied(value, row, self.key, self._names, more)


def refuse_escapes(text: str, key: str, meant: str = "") -> None:
    r"""Raise UserError for a `\n` in two letters, which is no line end and looks like one.

    meant: how the backslash itself is written, if that can be.
    """
    if found := _ESCAPE.search(text):
        way = f";\na backslash that is meant, as in LaTeX, is {meant}{found[0][1]}" if meant else ""
        raise UserError(
            f"{key}: {found[0]} is a backslash and a letter here, no line end or tab: put the whole"
            f" setting into $'...' in bash, the text into \"...\" in YAML{way}"
        )


def _text(text: Any, key: str) -> str:
    if not isinstance(text, str):
        raise UserError(f"{key}={brief(text)}: expected a text, in quotation marks")
    return text


def _compiled(
    compile: Callable[[str], Any], text: str, whole: str, key: str
) -> tuple[Any, frozenset[str], nodes.Template]:
    """What the text makes, the names in it, and its tree; whole: it as a template."""
    try:
        tree = environment().parse(whole)
        names = jinja2.meta.find_undeclared_variables(tree)
        return compile(text), frozenset({*names, *_constants(whole)}), tree
    except jinja2.TemplateError as error:
        raise UserError(f"{key}: {brief(error, 160)}{_spelt(whole)}") from None
    except (RecursionError, ValueError) as error:
        raise UserError(f"{key}: not readable ({brief(error, 160)})") from None


def _constants(whole: str) -> set[str]:
    """The words that Jinja reads as values where a name of a column may be meant."""
    tokens = [(kind, word) for _, kind, word in environment().lex(whole) if kind != "whitespace"]
    before = {".", "is", "not"}  # an item of an object, a test
    pairs = zip([("", ""), *tokens], tokens, strict=False)
    return {
        word
        for (_, last), (kind, word) in pairs
        if kind == "name" and word in _CONSTANTS and last not in before
    }


def _spelt(whole: str) -> str:
    """How to write a column whose name is not one word, if that is what does not compile."""
    for name in _PRINTED.findall(whole):
        try:
            environment().parse(f"{{{{ {name} }}}}")
        except jinja2.TemplateError:
            return _by_name(name)
    return ""


def _by_name(name: str) -> str:
    """How to write a column whose name is not one word."""
    return (
        f'; the column {quoted(name)} is {{{{ {WHOLE_ROW}["{brief(name)}"] }}}} in a template, or'
        " is renamed: +task.source.rename"
    )


def _applied(
    function: Callable[[Mapping[str, Any]], T],
    row: Row,
    key: str,
    names: Iterable[str],
    more: Mapping[str, Any],
) -> T:
    if word := next((name for name in names if name in _CONSTANTS and name in row.values), None):
        raise UserError(
            f"{row.where}: {key}: {word} is a word of templates, not the column{_by_name(word)}"
        )
    try:
        return function(helpers() | context(row.values, names) | dict(more))
    except jinja2.UndefinedError as error:
        raise UserError(
            f"{row.where}: {key}: {brief(error, 300).replace(SELF, 'self')}"
            f"{_there(row, names, more)}"
        ) from None
    except Exception as error:  # a template can raise anything
        raise UserError(f"{row.where}: {key}: {brief(error, 300)}") from None


def _there(row: Row, names: Iterable[str], more: Mapping[str, Any]) -> str:
    """The columns that there are, where one that is used does not exist."""
    own = {WHOLE_ROW, *HELPERS, *_CONSTANTS, *more}
    used = {"self" if name == SELF else name for name in names if name not in own}
    if all(named(row.values, name) for name in used):
        return ""
    odd = next((name for name in row.values if not str(name).isidentifier()), None)
    return f"; the row has {listed(row.values)}{'' if odd is None else _by_name(str(odd))}"


def _whole(text: str) -> str:
    if half := _HALF.search(text):
        raise UserError(f"the text holds {half[0]!r}, half of a character, which no text has")
    return text


def _is_list(value: Any) -> bool:
    kinds = (*WORDS, Mapping, bytes, jinja2.Undefined)
    return isinstance(value, Iterable) and not isinstance(value, kinds)
