"""A Hydra config source for the rows of the tables in conf/cells.

A table is a yaml of GROUP: FIRST: REST: settings, and a row is the option FIRST-REST of that group:
`protocol/of: {zobench: {mezo-full: {optimizer: {lr: 1.0e-6}}}}`. The defaults list of
conf/config.yaml sets when rows are read (`optional GROUP: ...`), and so what they override. Tables
of a `--config-dir`, and plain files of the same name, have precedence.
"""

import os
from collections.abc import Iterator, Mapping
from functools import cache, cached_property
from pathlib import Path
from typing import Any, NamedTuple

from hydra.core.object_type import ObjectType
from hydra.plugins.config_source import ConfigLoadError, ConfigResult, ConfigSource
from omegaconf import OmegaConf

from zobench.errors import UserError
from zobench.paths import conf_dir
from zobench.targets import FOLDERS


class Row(NamedTuple):
    """Settings for a pair of options, and the table that has them."""

    settings: Mapping[str, Any]
    table: Path


class Cells(ConfigSource):
    """The last entry of Hydra's search path (conf/config.yaml: `hydra.searchpath`).

    Hydra makes one for every composition, and asks it for some forty options.
    """

    @cached_property
    def _rows(self) -> dict[str, Row]:
        return rows()

    @staticmethod
    def scheme() -> str:
        return "cells"

    def available(self) -> bool:
        return True

    def is_group(self, config_path: str) -> bool:
        return config_path in groups()

    def is_config(self, config_path: str) -> bool:
        return config_path.removesuffix(".yaml") in self._rows

    def load_config(self, config_path: str) -> ConfigResult:
        row = self._rows.get(config_path.removesuffix(".yaml"))
        if row is None:
            raise ConfigLoadError(f"Config not found : {config_path}")
        header: dict[str, str | None] = {"package": "_global_"}
        config = OmegaConf.create(dict(row.settings))
        return ConfigResult(self.provider, f"cells://{row.table}", config, header)

    def list(self, config_path: str, results_filter: ObjectType | None) -> list[str]:
        if results_filter == ObjectType.GROUP:
            return []
        return sorted(name.rpartition("/")[2] for name in self._rows if _group(name) == config_path)


def rows() -> dict[str, Row]:
    """GROUP/FIRST-REST -> row, of all tables.

    Raises UserError for an invalid table, a row that two tables of a folder have, and a group that
    no defaults list reads.
    """
    given = [Path(folder) for folder in os.environ.get(FOLDERS, "").split(os.pathsep) if folder]
    found: dict[str, Row] = {}
    for folder in (*given, conf_dir()):
        tables = sorted((folder / "cells").glob("*.yaml"))
        found = _rows_of(tuple((path, path.stat().st_mtime_ns) for path in tables)) | found
    return found


@cache
def _rows_of(tables: tuple[tuple[Path, int], ...]) -> dict[str, Row]:
    found: dict[str, Row] = {}
    for path, _ in tables:
        for name, settings in _read(path):
            if name in found:
                raise UserError(f"{path}: {name}: {found[name].table} has this row, too; keep one")
            found[name] = Row(settings, path)
    return found


def _read(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for group, firsts in _mapping(OmegaConf.to_container(OmegaConf.load(path)), path, "a table"):
        if group not in groups():
            known = ", ".join(sorted(groups()))
            raise UserError(f"{path}: {group}: not a group with rows; these are: {known}")
        for first, rests in _mapping(firsts, path, group):
            for rest, settings in _mapping(rests, path, f"{group}: {first}"):
                row = _mapping(settings, path, f"{group}: {first}: {rest}")
                yield f"{group}/{first}-{rest}", dict(row)


def _mapping(node: Any, path: Path, name: str) -> list[tuple[str, Any]]:
    if not isinstance(node, Mapping):
        raise UserError(f"{path}: {name}: expected KEY: VALUE below it, as in conf/cells/lab.yaml")
    return [(str(key), value) for key, value in node.items()]


def _group(name: str) -> str:
    return name.rpartition("/")[0]


@cache
def groups() -> frozenset[str]:
    """The groups whose options are pairs: `grid`, and the `optional` ones of conf/config.yaml."""
    defaults: Any = OmegaConf.load(conf_dir() / "config.yaml")["defaults"]  # type: ignore[index]
    named = (str(key) for entry in defaults if OmegaConf.is_dict(entry) for key in entry)
    return frozenset({"grid", *(key.split()[-1] for key in named if key.startswith("optional "))})
