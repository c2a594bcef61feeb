"""The filters of templates, over the values that `{{ ... }}` writes."""

import json
from collections.abc import Callable, Iterable
from functools import wraps
from typing import Any

import jinja2
from jinja2.filters import FILTERS, make_attrgetter
from markupsafe import Markup

from zobench.tasks.cells import Named
from zobench.tasks.written import bounded, check_growth, percent, written

_LEFT_OUT = ("attr", "pprint", "random", "xmlattr")  # Python's signs; another text each time; HTML
_TEXTS = (  # filters of texts, the arguments of which are texts, numbers and truth values
    *("capitalize", "center", "e", "escape", "filesizeformat", "float", "forceescape", "indent"),
    *("int", "lower", "replace", "safe", "string", "striptags", "title", "trim", "truncate"),
    *("upper", "urlencode", "urlize", "wordcount", "wordwrap"),
)
_WIDE = ("center", "indent")  # the length of their result is an argument


def filters() -> dict[str, Callable[..., Any]]:
    """Jinja's, over data alone, and ours."""
    made = {name: of for name, of in FILTERS.items() if name not in _LEFT_OUT}
    made |= {name: _of_texts(FILTERS[name], wide=name in _WIDE) for name in _TEXTS}
    return made | {
        "join": _join,
        "format": _format,
        "tojson": _tojson,
        "lower_first": _of_texts(lower_first, wide=False),
        "upper_first": _of_texts(upper_first, wide=False),
    }


def lower_first(text: str) -> str:
    """The first word in lower case, unless it is "I" (MeZO's Copa)."""
    first, space, rest = text.partition(" ")
    return text if first == "I" else first.lower() + space + rest


def upper_first(text: str) -> str:
    """The first letter in upper case, the rest as it is (`capitalize` lowers the rest)."""
    return text[:1].upper() + text[1:]


def _of_texts(function: Callable[..., Any], *, wide: bool) -> Callable[..., Any]:
    own = int(hasattr(function, "jinja_pass_arg"))  # an argument of Jinja's comes first

    @wraps(function)
    def checked(*args: Any, **kwargs: Any) -> Any:
        values = [written(value) for value in args[own:]]
        named = {name: written(value) for name, value in kwargs.items()}
        if function is FILTERS["replace"]:
            check_growth("replace", *map(str, values), **named)
        if wide:
            bounded(*values[1:], *named.values())
        made = function(*args[:own], *values, **named)
        return str(made) if isinstance(made, Markup) else made

    return checked


@jinja2.pass_environment
def _join(
    environment: jinja2.Environment,
    value: Iterable[Any],
    d: Any = "",
    attribute: str | int | None = None,
) -> str:
    """The items, each of which is a text, a number or a date, with `d` in between."""
    if isinstance(value, Named | jinja2.Undefined) and not isinstance(value, list | dict):
        str(value)  # raises: bytes are no list of numbers here
    if isinstance(value, bytes):
        written(value)
    items = value if attribute is None else map(make_attrgetter(environment, attribute), value)
    texts = [str(written(item)) for item in items]
    check_growth("join", between := str(written(d)), texts)
    return between.join(texts)


def _format(text: Any, *args: Any, **kwargs: Any) -> str:
    """`text % args`, as Jinja's."""
    if args and kwargs:
        raise jinja2.TemplateRuntimeError("format takes values by place or by name, not both")
    return percent(str(written(text)), kwargs or args)


def _tojson(value: Any, indent: int | None = None) -> str:
    """Plain JSON, letters as they are; dates and decimals as texts."""
    return json.dumps(
        value,
        ensure_ascii=False,
        allow_nan=False,
        sort_keys=True,
        indent=indent,
        default=lambda other: str(written(other)),
    )
