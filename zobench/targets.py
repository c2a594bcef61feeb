"""Restricts the code that a `_target_` may name, before anything is imported.

Allowed are zobench, optimizers of torch, pytorch-optimizer and bitsandbytes, transformers' model
configs, and Python files of a `--config-dir`.
"""

import importlib
import importlib.util
import os
import re
import sys
from collections.abc import Callable, Iterator
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

from zobench.errors import UserError
from zobench.nested import nodes

FOLDERS = "ZOBENCH_CONFIG_DIRS"  # environment variable: folders whose Python files are allowed
_DOTTED = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+")
_OURS = re.compile(
    r"zobench\..+|torch\.optim\..+|pytorch_optimizer\.\w+|bitsandbytes\.optim\.\w+"
    r"|transformers\.[A-Za-z]\w*Config"
)
_HOMES = ("zobench.", "torch.optim.", "pytorch_optimizer.", "bitsandbytes.", "transformers.")
# Packages that an extra of zobench installs.
_EXTRAS = {"pytorch_optimizer": "memory", "bitsandbytes": "memory"}


def admit(folder: Path) -> None:
    """Allow the folder's Python files, in this process and in those of the runs."""
    place = str(folder.expanduser().resolve())
    for name in (FOLDERS, "PYTHONPATH"):
        others = [path for path in os.environ.get(name, "").split(os.pathsep) if path != place]
        os.environ[name] = os.pathsep.join([place, *filter(None, others)])
    sys.path.insert(0, place)


def located(target: Any, key: str) -> Any:
    """The object that a `_target_` names; UserError if it is not allowed or does not exist."""
    return _found(target, f"{key}._target_={target}" if key else f"_target_={target}")


def function_named(name: str, key: str) -> Callable[..., Any]:
    """The function that the setting `key` names, such as mine.reward; UserError as in `located`."""
    found = _found(name, f"{key}={name}")
    if not callable(found):
        raise UserError(f"{key}={name}: is not a function")
    function: Callable[..., Any] = found
    return function


def _found(target: Any, named: str) -> Any:
    """The object with this dotted name. named: setting and value, for messages."""
    if not isinstance(target, str) or not _DOTTED.fullmatch(target):
        raise UserError(f"{named}: expected a dotted name, such as zobench.zo.rules.sgd.SGD")
    of_user = not _OURS.fullmatch(target)
    module, _, name = target.rpartition(".")
    if of_user and not _in_admitted_folder(module):
        raise UserError(
            f"{named}: a config names only what is in zobench or torch.optim, and Python files in"
            " the folder given by --config-dir"
        )
    try:
        found = getattr(importlib.import_module(module), name)
    except ModuleNotFoundError as error:
        extra = _EXTRAS.get(error.name or "")
        hint = f"; the extra installs it: pip install 'zobench[{extra}]'" if extra else ""
        raise UserError(f"{named}: cannot be imported ({error}){hint}") from None
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(f"{named}: cannot be imported ({error})") from None
    home = f"{getattr(found, '__module__', '')}."
    if not of_user and not home.startswith(_HOMES):
        raise UserError(f"{named}: is not defined there, but in {home[:-1] or 'no module'}")
    return found


def targets_in(node: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """(key of the node, target) of all nodes with a `_target_`, at any depth."""
    for place, value in nodes(node, key):
        parent, _, name = place.rpartition(".")
        if name == "_target_":
            yield parent, value


def _in_admitted_folder(module: str) -> bool:
    """Whether importing the module loads a file of an admitted folder."""
    folders = [path for path in os.environ.get(FOLDERS, "").split(os.pathsep) if path]
    if not folders:
        return False
    sys.path[:0] = [path for path in folders if path not in sys.path]
    top, *below = module.split(".")
    try:
        spec = importlib.util.find_spec(top)  # imports nothing, since the name has no dot
    except ValueError:  # a module without a spec
        return False
    for part in below:
        places = spec.submodule_search_locations if spec else None
        spec = PathFinder.find_spec(part, list(places)) if places else None
    if spec is None or not spec.has_location or spec.origin is None:
        return False
    return any(_lies_in(folder, top, Path(os.path.abspath(spec.origin))) for folder in folders)


def _lies_in(folder: str, top: str, file: Path) -> bool:
    """Whether the file is FOLDER/top.py or below FOLDER/top, not in an environment in FOLDER."""
    return file.is_relative_to(folder) and file.relative_to(folder).parts[0] in (top, f"{top}.py")
