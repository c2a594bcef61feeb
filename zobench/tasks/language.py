"""The language of templates: Jinja2, which sees data alone, writes no data but text and numbers.

`{{ a.b }}` is item b of an object, never an attribute of Python's; texts have their methods.
"""

import datetime
import numbers
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.compiler import CodeGenerator, Frame
from jinja2.sandbox import SandboxedEnvironment

from zobench.tasks.cells import WORDS, Named, Null, called, finite
from zobench.tasks.shown import listed, nfc, visible

_METHODS: tuple[tuple[Any, frozenset[str]], ...] = (  # what may be called, by type
    (str, frozenset(name for name in dir(str) if not name.startswith("_"))),
    ((list, tuple), frozenset({"count", "index"})),
    (bytes, frozenset({"decode"})),
    ((datetime.date, datetime.time), frozenset({"isoformat", "strftime"})),
    ((numbers.Number, type(None)), frozenset()),
)
_LEFT_OUT = ("attr", "pprint", "random")  # Python's attributes and signs; other texts each time


def lower_first(text: str) -> str:
    """The first word in lower case, unless it is "I" (MeZO's Copa)."""
    first, space, rest = text.partition(" ")
    return text if first == "I" else first.lower() + space + rest


def upper_first(text: str) -> str:
    """The first letter in upper case, the rest as it is (`capitalize` lowers the rest)."""
    return text[:1].upper() + text[1:]


class Method:
    """A method of a text, which is there to be called."""

    def __init__(self, name: str, function: Callable[..., Any]) -> None:
        self._name, self._function = name, function

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
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


class _Code(CodeGenerator):
    """`a ~ b` writes its parts as `{{ a }}{{ b }}` does."""

    def visit_Concat(self, node: nodes.Concat, frame: Frame) -> None:
        write = nodes.EnvironmentAttribute("finalize")
        parts = [nodes.Call(write, [part], [], None, None) for part in node.nodes]
        super().visit_Concat(nodes.Concat(parts), frame)


class Language(SandboxedEnvironment):
    """Names after a dot are items of objects, or methods of what has no items."""

    code_generator_class = _Code

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
    made.filters |= {"lower_first": lower_first, "upper_first": upper_first}
    for name in _LEFT_OUT:
        made.filters.pop(name)
    made.globals.pop("lipsum")
    made.policies["json.dumps_kwargs"] = {"sort_keys": True, "default": written}
    made.tests["none"] = lambda value: value is None or isinstance(value, Null)
    return made
