"""The language of templates: Jinja2 over plain data, which writes texts, numbers and dates only.

`{{ a.b }}` is item b of an object, never an attribute of Python's; texts have their methods.
"""

import datetime
import numbers
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.defaults import DEFAULT_NAMESPACE
from jinja2.sandbox import SandboxedEnvironment

from zobench.tasks.cells import SELF, Named, Null
from zobench.tasks.filters import filters
from zobench.tasks.shown import listed, nfc, visible
from zobench.tasks.written import MOST, Format, Method, percent, power, product, written

_METHODS: tuple[tuple[Any, frozenset[str]], ...] = (  # what may be called, by type
    (str, frozenset(name for name in dir(str) if not name.startswith("_"))),
    ((list, tuple), frozenset({"count", "index"})),
    (bytes, frozenset({"decode"})),
    ((datetime.date, datetime.time), frozenset({"isoformat", "strftime"})),
    ((numbers.Number, type(None)), frozenset()),
)


def _remainder(left: Any, right: Any) -> Any:
    if isinstance(left, bytes):
        return written(left)  # raises
    return percent(left, right) if isinstance(left, str) else left % right


def _ours(tree: nodes.Template) -> nodes.Template:
    """The tree with `self` a column as any other, and `a ~ b` writing as `{{ a }}{{ b }}` does."""
    for name in tree.find_all(nodes.Name):
        if name.name == "self":
            name.name = SELF
    write = nodes.EnvironmentAttribute("finalize")
    for sum_of in tree.find_all(nodes.Concat):
        sum_of.nodes = [nodes.Call(write, [node], [], None, None) for node in sum_of.nodes]
    return tree


class Language(SandboxedEnvironment):
    """Names after a dot are items of objects, or methods of what has no items."""

    intercepted_binops = frozenset({"%", "*", "**"})

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.binop_table |= {"%": _remainder, "*": product, "**": power}

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        return _ours(super()._parse(source, name, filename))

    def _generate(self, source: nodes.Template, *args: Any, **kwargs: Any) -> str:
        return super()._generate(_ours(source), *args, **kwargs)

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        """`format` and `format_map` of a text, over data alone; None for what is neither."""
        text = getattr(value, "__self__", None)
        if not isinstance(text, str) or value.__name__ not in ("format", "format_map"):
            return None
        if value.__name__ == "format":
            return lambda *args, **kwargs: Format(self).vformat(text, args, kwargs)
        return lambda mapping: Format(self).vformat(text, (), mapping)

    def getattr(self, obj: Any, attribute: str) -> Any:
        if isinstance(obj, Mapping):
            return self._item(obj, attribute)
        for kind, methods in _METHODS:
            if isinstance(obj, kind) and not hasattr(obj, "_fields"):
                if attribute not in methods:
                    return self._missing(obj, attribute)
                method = getattr(obj, attribute)
                return Method(attribute, self.wrap_str_format(method) or method)
        return super().getattr(obj, attribute)  # Jinja's own: loop, namespace, ...

    def getitem(self, obj: Any, argument: Any) -> Any:
        if isinstance(obj, Mapping):
            return self._item(obj, argument)
        if any(isinstance(obj, kind) for kind, _ in _METHODS):
            try:
                return obj[argument]
            except (TypeError, LookupError):
                return self._missing(obj, argument)
        return super().getitem(obj, argument)

    def _missing(self, obj: Any, name: Any) -> jinja2.Undefined:
        if isinstance(obj, Named):
            return self.undefined(f"column {obj.path} is {obj.kind} and has no {visible(name)}")
        return self.undefined(obj=obj, name=name)

    def _item(self, obj: Mapping[Any, Any], key: Any) -> Any:
        if key in obj:
            return obj[key]
        if isinstance(key, str) and not key.isascii():
            for other in obj:
                if nfc(str(other)) == nfc(key):
                    return obj[other]
        called = " (an object has no methods here; {{ x | items }} lists it)"
        return self.undefined(
            hint=f"{getattr(obj, 'path', 'the object')} has no key {visible(key)};"
            f" it has {listed(obj) or 'none'}{called if hasattr(dict, str(key)) else ''}"
        )


@lru_cache
def environment() -> Language:
    """The one that all templates are made in."""
    made = Language(
        undefined=jinja2.StrictUndefined,
        autoescape=False,
        keep_trailing_newline=True,
        finalize=written,
    )
    made.filters = filters()
    made.globals = {}  # a column of any name stands before what Jinja brings along
    made.tests["none"] = lambda value: value is None or isinstance(value, Null)
    return made


class _Ranges:
    """`range(n)` of a template, with so many numbers in all that loops in loops come to an end."""

    def __init__(self) -> None:
        self._left = MOST

    def __call__(self, *args: int) -> range:
        numbers = range(*args)
        self._left -= len(numbers)
        if self._left < 0:
            raise jinja2.TemplateRuntimeError(f"range: more than {MOST:,} numbers in all")
        return numbers


HELPERS = ("cycler", "dict", "joiner", "namespace", "range")


def helpers() -> dict[str, Any]:
    """What a template has where no column is called so."""
    return {name: DEFAULT_NAMESPACE[name] for name in HELPERS} | {"range": _Ranges()}
