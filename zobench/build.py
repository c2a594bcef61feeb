"""Checks `_target_` nodes of the settings and builds their objects.

Hydra's `instantiate` would resolve interpolations a second time, after the checks. Here settings
are plain data, so exactly the checked values are used.
"""

import inspect
import re
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

import torch

from zobench.errors import UserError
from zobench.nested import nodes
from zobench.targets import located, targets_in

_CONTAINERS = (Sequence, list, tuple, Mapping, dict)
_PLAIN = (bool, int, float, str, type(None))
_INTERPOLATION = re.compile(r"\$\{\s*(\$\{|[\w.\[@])")  # as in OmegaConf: `${{ x }}` is not one
_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def build(node: Mapping[str, Any], key: str = "") -> Any:
    """Build the object of a `_target_` node; its arguments are plain dicts and lists.

    key: of the node, for messages. Raises UserError as `check` does, and for a ValueError of the
    target.
    """
    check({key: node})
    try:
        return _made(node)
    except UserError:
        raise
    except ValueError as error:
        raise UserError(str(error)) from error


def _made(node: Any) -> Any:
    if isinstance(node, list | tuple):
        return [_made(value) for value in node]
    if not isinstance(node, Mapping):
        return node
    arguments = {name: _made(value) for name, value in node.items()}
    if "_target_" not in arguments:
        return arguments
    target: Callable[..., Any] = located(arguments.pop("_target_"), "")
    return (
        partial(target, **arguments) if arguments.pop("_partial_", False) else target(**arguments)
    )


def _refuse_interpolation(text: str, key: str) -> None:
    """Raise UserError for a text that OmegaConf would read as an interpolation.

    Settings are resolved once, when they are composed; a later interpolation was escaped, or
    written into the files of a run.
    """
    if found := _INTERPOLATION.search(text):
        shown = text[found.start() : found.start() + 40]
        raise UserError(
            f"{key}: holds the interpolation {shown!r}, which is not resolved here; for a dollar"
            ' and a brace in a template write {{ "$" }}{'
        )


def build_optimizer(
    node: Mapping[str, Any],
    trainable: Iterable[tuple[str, Any]],
    model: torch.nn.Module | None = None,
) -> torch.optim.Optimizer:
    """Build the optimizer over (name, parameter) pairs. model: for packing (`pack`).

    Raises UserError for invalid values, and for parts that do not fit together.
    """
    try:
        packed = {"model": model} if node.get("pack") else {}
        made = build(node, "optimizer")
        optimizer: torch.optim.Optimizer = made(trainable, **packed)
    except ValueError as error:
        named = str(error).startswith("optimizer")
        raise UserError(str(error) if named else f"optimizer: {error}") from error
    return optimizer


def try_optimizer(node: Mapping[str, Any]) -> torch.optim.Optimizer:
    """Build the optimizer for one weight, to find errors that signatures cannot show."""
    model = torch.nn.ParameterDict({"weight": torch.zeros(1)})
    return build_optimizer(node, model.named_parameters(), model)


def check(settings: Mapping[str, Any]) -> None:
    """Bind every `_target_` node to its target's signature, without building anything.

    Raises UserError naming the key if a target does not exist, a setting is unknown, missing or of
    the wrong type, or a text holds an escaped interpolation.
    """
    for key, target in targets_in(settings):
        located(target, key)
    for name, part in settings.items():
        for key, node in nodes(part, name):
            if isinstance(node, str):
                _refuse_interpolation(node, key)
        for key, node in nodes(part, name):
            if isinstance(node, Mapping) and "_target_" in node:
                _bind(node, key)


def _bind(node: Mapping[str, Any], key: str) -> None:
    target = located(node["_target_"], key)
    key = key or "settings"
    for name in node.keys() - {"_target_", "_partial_"}:
        if name.startswith("_"):  # Hydra's own, such as _args_, which a signature cannot check
            raise UserError(f"{key}.{name}: no such setting; give arguments by their names")
    arguments = {name: value for name, value in node.items() if not name.startswith("_")}
    try:
        signature = inspect.signature(target)
    except (TypeError, ValueError) as error:
        raise UserError(f"{key}._target_={node['_target_']}: cannot be checked ({error})") from None
    try:
        hints = typing.get_type_hints(target.__init__ if inspect.isclass(target) else target)
    except NameError:  # names for type checkers only: the target checks its values
        hints = {}
    accepted = {name for name, p in signature.parameters.items() if p.kind is not p.VAR_KEYWORD}
    open_ended = len(accepted) < len(signature.parameters)
    for name in [] if open_ended else arguments.keys() - accepted:
        raise UserError(
            f"{key}.{name}: {node['_target_']} has no such setting;"
            f" it takes {', '.join(sorted(accepted))}"
        )
    for name, p in signature.parameters.items():
        # a partial gets its positional arguments when it is called
        needed = (p.KEYWORD_ONLY,) if node.get("_partial_") else (p.KEYWORD_ONLY, *_POSITIONAL)
        if p.default is p.empty and p.kind in needed and name not in arguments:
            raise UserError(f"{key}.{name}: {node['_target_']} needs this setting")
    for name, value in arguments.items():
        if name in hints and (wrong := _misfit(value, hints[name], f"{key}.{name}")):
            place, found, hint = wrong
            shown = found if len(str(found)) < 100 else f"{str(found)[:97]}..."
            raise UserError(f"{place}={shown}: expected {_readable(hint, found)}")


def _misfit(value: Any, hint: Any, key: str) -> tuple[str, Any, Any] | None:
    """The key, value and hint of the first (nested) value that does not have its annotated type."""
    if not _fits(value, hint):
        return key, value, hint
    found = []
    for option in _options(hint):
        wrong = [_misfit(item, inner, f"{key}.{at}") for at, item, inner in _inside(value, option)]
        found += [next(filter(None, wrong), None)] if wrong else []
    return None if None in found or not found else found[0]


def _options(hint: Any) -> tuple[Any, ...]:
    """The members of a union; of any other type, itself."""
    union = isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union
    return typing.get_args(hint) if union else (hint,)


def _inside(value: Any, hint: Any) -> Iterator[tuple[object, Any, Any]]:
    """The items of a container: place, item and the item's hint, if there is one."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if isinstance(value, Mapping) and "_target_" not in value and origin in _CONTAINERS[-2:]:
        yield from ((name, item, inner[1]) for name, item in value.items())
    elif isinstance(value, list) and origin in _CONTAINERS[:-2]:
        every = inner * len(value) if origin is not tuple else inner
        if origin is tuple and Ellipsis in inner:
            every = inner[:1] * len(value)
        yield from zip(range(len(value)), value, every, strict=False)


def _fits(value: Any, hint: Any) -> bool:
    """Whether a plain value has the annotated type; the target checks other values."""
    options = _options(hint)
    if value is None:
        return bool({Any, None, type(None), object} & {*options}) or isinstance(hint, str | TypeVar)
    scalar = isinstance(value, bool | int | float | str)
    if scalar and {typing.get_origin(option) for option in options} <= {*_CONTAINERS, None}:
        containers = [option for option in options if typing.get_origin(option)]
        if containers and set(options) <= {*containers, type(None)}:
            return False  # a text is also a Sequence, but is not meant
    if Any in options or not all(isinstance(option, type) for option in options):
        return True
    if isinstance(value, bool | int | float) and not {*_PLAIN[:-1], object} & {*options}:
        return False
    if isinstance(value, Mapping | list) and not set(options) <= set(_PLAIN):
        return True
    if isinstance(value, bool):
        return bool in options or not set(options) <= set(_PLAIN)
    if isinstance(value, int) and float in options:
        return True
    return isinstance(value, options) or not (set(options) & set(_PLAIN))


def _readable(hint: Any, found: Any) -> str:
    expected = hint.__name__ if isinstance(hint, type) else str(hint).replace("None", "null")
    for written, plain in (
        ("collections.abc.Sequence", "list"),
        ("collections.abc.Mapping", "dict"),
    ):
        expected = expected.replace(written, plain)
    text = str in (hint, *typing.get_args(hint)) and isinstance(found, bool | int | float)
    return f'{expected}, in quotation marks: "{found}"' if text else expected
