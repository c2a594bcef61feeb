"""Functions of the user's own, which settings name: `task.loss=mine.reward`."""

import inspect
import math
import traceback
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from zobench.errors import UserError
from zobench.targets import function_named
from zobench.tasks.cells import called
from zobench.tasks.shown import brief

_SETTINGS = ("loss", "metric", "metrics", "reward")  # of a task, which may name functions
OF_AN_EXAMPLE = ("output", "gold", "row")
OF_A_SPLIT = ("outputs", "golds", "rows")


@dataclass(frozen=True)
class Own:
    """A function of the user's own; a call returns a number or raises UserError.

    setting: the key and the function's name, for messages. name: of the metric.
    """

    setting: str
    name: str
    function: Callable[..., Any]

    def __call__(self, *arguments: Any) -> float:
        """The function's value, which may be NaN. What it does to its arguments stays with it."""
        try:
            value = self.function(*deepcopy(arguments))
        except Exception as error:  # a function of the user's can raise anything
            reason = f"{type(error).__name__}: {brief(error, 200)}"
            raise UserError(f"{self.setting}: raised {reason} ({_line_of(error)})") from error
        try:
            return float(value)
        except (TypeError, ValueError, RuntimeError, OverflowError):
            raise UserError(
                f"{self.setting}: returned {called(value)}; it has to return a number"
            ) from None

    def tried(self, *arguments: Any) -> None:
        """Call it once; UserError for NaN and infinities, too."""
        if not math.isfinite(value := self(*arguments)):
            raise UserError(f"{self.setting}: returned {value}; it has to return a finite number")


def own_function(given: Any, key: str, arguments: tuple[str, ...]) -> Own | None:
    """The function that a setting holds.

    Args:
        given: a name, such as mine.reward, or a function that `_partial_` has made.
        key: of the setting.
        arguments: the names of what the function is called with.

    Returns:
        None for a name without a dot, which is not the user's.

    Raises:
        UserError: if there is no such function, or it does not take these arguments.
    """
    if isinstance(given, str):
        if "." not in given:
            return None
        name, function = given, function_named(given, key)
    elif callable(given):
        bare = given.func if isinstance(given, partial) else given
        name, function = getattr(bare, "__name__", type(bare).__name__), given
    else:
        raise UserError(f"{key}={brief(given)}: expected a name, such as mine.reward")
    setting = f"{key}={name}"
    try:
        signature = inspect.signature(function)
        signature.bind(*arguments)
    except TypeError:
        raise UserError(
            f"{setting}: is called with ({', '.join(arguments)}), and takes {signature}"
        ) from None
    except ValueError:  # built-in functions may have no signature; the first call shows it
        pass
    return Own(setting, name.rpartition(".")[2], function)


def named_functions(task: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """(key, name) of the functions that a task's settings name."""
    for key in _SETTINGS:
        given = task.get(key)
        for name in given if isinstance(given, list) else [given]:
            if isinstance(name, str) and "." in name:
                yield f"task.{key}", name


def _line_of(error: Exception) -> str:
    """File and line where the user's code raised."""
    frames = traceback.extract_tb(error.__traceback__)
    last = frames[-1]
    return f"{Path(last.filename).name}:{last.lineno}"
