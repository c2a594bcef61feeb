"""`zobench why KEY`: the file, table row or override that a composed setting comes from."""

import argparse
import copy
import difflib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.types import RunMode
from omegaconf import OmegaConf, open_dict

from zobench.cells import Cells
from zobench.errors import UserError
from zobench.grids import search_path
from zobench.hydra_app import ready
from zobench.paths import PACKAGE_DIR
from zobench.schema import resolved

_REFERENCE = re.compile(r"\$\{(?:oc\.select:)?([\w.]+)\}")  # a value that is one interpolation
_COMPUTED = {  # settings that zobench.schema.resolved computes from others
    "optimizer.lr": "lr_factor",
    "budget.steps": "budget.forwards",
    "train.log_every": "budget.forwards",
    "train.eval_every": "budget.forwards",
}


class Source(NamedTuple):
    """A place that sets a value: a file, a row of a table, or the command line."""

    value: Any
    place: str


class Composition:
    """The config that Hydra composes from a command line, and the content of each file."""

    def __init__(self, overrides: Sequence[str], config_dir: str | None = None) -> None:
        loader = ConfigLoaderImpl(search_path(config_dir))
        words = list(overrides)
        self.config: Any = loader.load_configuration("config", words, RunMode.MULTIRUN)
        own = copy.deepcopy(self.config)
        with open_dict(own):
            del own["hydra"]
        settings = resolved(own)
        unresolved: Any = OmegaConf.to_container(own, resolve=False)
        left_out = {k: v for k, v in unresolved.items() if k not in settings}
        self.values = leaves({**settings, **left_out})  # of a run, and of the groups referred to
        self._files: list[tuple[str, str, Any]] = []  # package, place and content, in Hydra's order
        sources = [*loader.get_sources(), Cells("zobench", "cells://")]
        for default in loader.compute_defaults_list("config", words, RunMode.MULTIRUN).defaults:
            path = str(default.config_path)
            source = next(source for source in sources if source.is_config(path))
            found = source.load_config(path)
            if not path.startswith("hydra/"):
                place = _place(found.path, path, source.scheme())
                content = OmegaConf.to_container(found.config, resolve=False)
                self._files.append((default.package or "", place, content))
        self._typed = [word.lstrip("+").partition("=")[::2] for word in words]

    def keys(self, below: str) -> list[str]:
        """The keys of all single values at or below a key; UserError if there are none."""
        found = [key for key in self.values if key == below or key.startswith(f"{below}.")]
        if below and not found:
            close = difflib.get_close_matches(below, self.values, 3)
            hint = f"; there is {', '.join(close)}" if close else ""
            raise UserError(f"{below}: no such setting{hint}")
        return found or list(self.values)

    def sources(self, key: str) -> list[Source]:
        """All places that set a key; the last one counts."""
        found = []
        for package, place, content in self._files:
            inner = key if not package else key.removeprefix(f"{package}.")
            if package and inner == key:
                continue
            value = _select(content, inner)
            if value is not _NOTHING and value != "???":
                found.append(Source(value, place))
        found += [Source(value, "command line") for name, value in self._typed if name == key]
        return found

    def history(self, key: str, indent: int = 1) -> Iterator[str]:
        """A line for each place that sets the key, and for its references."""
        margin = "  " * indent
        found = self.sources(key)
        for value, place in found:
            yield f"{margin}{_shown(value):<12} {place}"
        if found and (other := _reference(found[-1].value)):
            yield from self.history(other, indent + 1)
        elif not found and (inside := self._inside(key)):
            parent, source, target = inside
            yield f"{margin}{parent} is {source.value}, by {source.place}"
            yield from self.history(target, indent + 1)
        if cause := self._cause(key):
            yield f"{margin}then computed from {cause}:"
            yield from self.history(cause, indent + 1)

    def place(self, key: str) -> str:
        """The last place that sets a key, or the setting that it is computed from."""
        if cause := self._cause(key):
            return f"computed from {cause}"
        if found := self.sources(key):
            return found[-1].place
        inside = self._inside(key)
        return self.place(inside[2]) if inside else "not set"

    def _inside(self, key: str) -> tuple[str, Source, str] | None:
        """For a key inside a reference: the parent that is one, its source, and the key meant."""
        for parent, rest in _parents(key):
            above = self.sources(parent)
            if above and (other := _reference(above[-1].value)):
                return parent, above[-1], f"{other}.{rest}"
        return None

    def _cause(self, key: str) -> str | None:
        """The setting that the key is computed from in this run."""
        cause = _COMPUTED.get(key)
        used = cause is not None and OmegaConf.select(self.config, cause) not in (None, 1.0)
        return cause if used else None

    def swept(self, key: str) -> str | None:
        """The values of the key in the experiment's grid."""
        params = self.config.hydra.sweeper.params or {}
        return None if key not in params else str(params[key])


_NOTHING = object()


def _select(node: Any, key: str) -> Any:
    """The value of a dotted key, whose parts may have dots themselves, as in `search`."""
    if not isinstance(node, Mapping):
        return _NOTHING
    if key in node:
        return node[key]
    first, dot, rest = key.partition(".")
    return _select(node[first], rest) if dot and first in node else _NOTHING


def leaves(node: Any, key: str = "") -> dict[str, Any]:
    """Dotted key -> value, of all single values and empty mappings of nested mappings."""
    if not isinstance(node, Mapping) or not node:
        return {key: node}
    inner = [leaves(value, f"{key}.{name}" if key else str(name)) for name, value in node.items()]
    return {name: value for part in inner for name, value in part.items()}


def _parents(key: str) -> Iterator[tuple[str, str]]:
    """`a.b.c` as (a.b, c), (a, b.c)."""
    parts = key.split(".")
    for at in range(len(parts) - 1, 0, -1):
        yield ".".join(parts[:at]), ".".join(parts[at:])


def _reference(value: Any) -> str | None:
    found = _REFERENCE.fullmatch(value) if isinstance(value, str) else None
    return found and found[1]


def _place(path: str | None, name: str, scheme: str) -> str:
    if scheme == "structured":
        return "default (zobench/settings.py)"
    file = Path(str(path).partition("://")[2])
    file = file if scheme == "cells" else file / f"{name}.yaml"
    if file.is_relative_to(PACKAGE_DIR.parent):
        file = file.relative_to(PACKAGE_DIR.parent)
    group, _, row = name.rpartition("/")
    return f"{file}, {group}: {row}" if scheme == "cells" else str(file)


def _shown(value: Any) -> str:
    return "null" if value is None else str(value)


def main(arguments: list[str]) -> int:
    """Command line of `zobench why`: the history of a setting, or the source of each below it."""
    parser = argparse.ArgumentParser(
        prog="zobench why",
        description="Show where a setting of a run comes from: every file, table row and override"
        " that sets it; the last one counts. For a section, show the last source of each setting;"
        " without KEY, of all settings.",
        epilog="example: zobench why optimizer.lr experiment=mezo_opt13b optimizer=mezo",
    )
    parser.add_argument("key", metavar="KEY", nargs="?", default="", help="such as optimizer.lr")
    parser.add_argument("overrides", metavar="OVERRIDE", nargs="*", help="those of the run")
    parser.add_argument("--config-dir", "-cd", help="folder of your own configs")
    args = parser.parse_intermixed_args(arguments)
    key, overrides = args.key, args.overrides
    if "=" in key:
        key, overrides = "", [key, *overrides]
    ready([*overrides, *(["--config-dir", args.config_dir] if args.config_dir else [])])
    composition = Composition(overrides, args.config_dir and os.path.abspath(args.config_dir))
    keys = composition.keys(key)
    if keys == [key]:
        print(f"{key} = {_shown(composition.values[key])}")
        print("\n".join(composition.history(key)))
        if (values := composition.swept(key)) is not None:
            print(f"the grid sweeps over {values}")
        return 0
    lines = [f"{name} = {_shown(composition.values[name])}" for name in keys]
    width = min(50, max(map(len, lines)))
    for name, line in zip(keys, lines, strict=True):
        print(f"{line:<{width}}  {composition.place(name)}")
    return 0
