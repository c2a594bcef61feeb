"""Expands an experiment with several grids into one command line per grid.

An overlay has a grid, and may have more with other settings: rows of the group `grid`
(conf/cells/grids.yaml), launched one after another. Options on the command line select the grids
that have them, for instance `optimizer=adamw` the one with back-propagation.
"""

import argparse
import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.utils import create_config_search_path, get_args_parser
from hydra.core.config_search_path import ConfigSearchPath, SearchPathQuery
from hydra.types import RunMode
from omegaconf import OmegaConf, open_dict

from zobench.cells import rows
from zobench.hydra_app import ready, runs_of, values_in
from zobench.paths import conf_dir
from zobench.schema import resolved

_GROUPS = ("optimizer", "evaluation", "tuning", "task", "model")  # options in these select grids


class Grid(NamedTuple):
    """A grid's sweeper, its options by group, and the overrides that launch it."""

    sweeper: Any
    options: dict[str, list[str]]
    words: list[str]

    def with_only(self, group: str, options: Sequence[str]) -> "Grid":
        """The grid restricted to these options of a group."""
        words = [word for word in self.words if word.partition("=")[0] != group]
        return self._replace(words=[*words, f"{group}={','.join(options)}"])


def command_lines(arguments: list[str]) -> list[list[str]]:
    """One command line per grid of the experiment; the given one if there are no further grids."""
    given = get_args_parser().parse_args(arguments)
    if given.cfg or given.help or given.hydra_help or given.info or given.shell_completion:
        return [arguments]
    ready(arguments)
    typed = values_in(given.overrides)
    overlay = typed.get("experiment", [""])[-1]
    further = [name.removeprefix("grid/") for name in rows() if name.startswith(f"grid/{overlay}-")]
    if not further or "grid" in typed:
        return [arguments]
    grids = [_composed(given, []), *(_composed(given, [f"grid={option}"]) for option in further)]
    for group in _GROUPS:
        if group in typed:
            grids = restricted(grids, group, typed[group])
    flags = [word for word in arguments if word not in given.overrides]
    runs = sum(runs_of(grid.sweeper, grid.words) for grid in grids)
    return [[*flags, *grid.words, f"hydra.callbacks.plan.runs={runs}"] for grid in grids]


def restricted(grids: list[Grid], group: str, typed: list[str]) -> list[Grid]:
    """The grids that have a typed option, restricted; options of no grid go to the first one."""
    # a grid that does not set the group has all options
    kept = [[o for o in typed if o in grid.options.get(group, typed)] for grid in grids]
    kept[0] = [
        option for option in typed if option in kept[0] or not any(option in k for k in kept)
    ]
    return [
        grid.with_only(group, options) for grid, options in zip(grids, kept, strict=True) if options
    ]


def search_path(config_dir: str | None) -> ConfigSearchPath:
    """Hydra's search path: the user's folder, if there is one, and conf/."""
    path = create_config_search_path(str(conf_dir()))
    if config_dir is not None:
        place = f"file://{os.path.abspath(config_dir)}"
        path.prepend("command-line", place, SearchPathQuery(provider="schema"))
    return path


def composition(overrides: Sequence[str]) -> tuple[Any, Any]:
    """The composed settings, unresolved, and Hydra's own, as a sweep has them before its jobs."""
    ready([*overrides])
    config = _loaded([*overrides], None)
    hydra = config.hydra
    with open_dict(config):
        del config.hydra
    return config, hydra


def settings_of(
    overrides: Sequence[str], known: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The resolved settings that overrides compose to, and the option of each config group.

    Args:
        overrides: as on a command line.
        known: settings of a run, which has what a yaml leaves open, such as `model.path`.
    """
    config, hydra = composition(overrides)
    for key in OmegaConf.missing_keys(config):
        OmegaConf.update(config, key, OmegaConf.select(OmegaConf.create(dict(known)), key))
    return resolved(config), dict(hydra.runtime.choices)


def _composed(given: argparse.Namespace, more: list[str]) -> Grid:
    """A grid as Hydra composes it."""
    words = [*given.overrides, *more]
    sweeper = _loaded(words, given.config_dir).hydra.sweeper
    options = values_in([f"{key}={value}" for key, value in sweeper.params.items()])
    found = {group: options[group] for group in _GROUPS if group in options}
    return Grid(sweeper, found, words)


def _loaded(words: list[str], config_dir: str | None) -> Any:
    """The settings as Hydra composes them for a sweep, with Hydra's own."""
    loader = ConfigLoaderImpl(search_path(config_dir))
    return loader.load_configuration("config", words, RunMode.MULTIRUN)
