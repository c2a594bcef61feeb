"""All grids of a table in one command: `zobench experiment=mezo_opt13b` and what it stands for.

An overlay has a grid, and may have further ones, whose settings differ: rows of the group `grid`
(conf/cells/grids.yaml). The command launches one after another. Options that are typed restrict it
to the grids that have them: `optimizer=adamw` to that of back-propagation.
"""

import argparse
import os
from collections.abc import Sequence
from typing import Any, NamedTuple

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.utils import create_config_search_path, get_args_parser
from hydra.core.config_search_path import ConfigSearchPath, SearchPathQuery
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import RunMode

from zobench.cells import rows
from zobench.hydra_app import jobs_in, ready, values_of
from zobench.paths import conf_dir

_GROUPS = (
    "optimizer",
    "evaluation",
    "tuning",
    "task",
    "model",
)  # what restricts; other keys are for all grids


class Grid(NamedTuple):
    """The options that a grid has by group, and the overrides that launch it."""

    params: dict[str, str]
    options: dict[str, list[str]]
    words: list[str]

    def having(self, group: str, typed: list[str]) -> list[str]:
        """Those of the typed options that the grid has; all of them where it does not say."""
        return [option for option in typed if option in self.options.get(group, typed)]

    def with_only(self, group: str, options: Sequence[str]) -> "Grid":
        """The grid with these options of a group."""
        words = [word for word in self.words if word.partition("=")[0] != group]
        return self._replace(words=[*words, f"{group}={','.join(options)}"])


def command_lines(arguments: list[str]) -> list[list[str]]:
    """The command lines that this one stands for: one per grid of its experiment, or itself."""
    given = get_args_parser().parse_args(arguments)
    if given.cfg or given.help or given.hydra_help or given.info or given.shell_completion:
        return [arguments]
    ready(arguments)
    parsed = OverridesParser.create().parse_overrides(given.overrides)
    typed = {override.get_key_element(): values_of(override) for override in parsed}
    overlay = typed.get("experiment", [""])[-1]
    further = [name.removeprefix("grid/") for name in rows() if name.startswith(f"grid/{overlay}-")]
    if not further or "grid" in typed:
        return [arguments]
    grids = [_composed(given, []), *(_composed(given, [f"grid={option}"]) for option in further)]
    for group in _GROUPS:
        if group in typed:
            grids = restricted(grids, group, typed[group])
    flags = [word for word in arguments if word not in given.overrides]
    runs = sum(jobs_in(grid.params, grid.words) for grid in grids)
    return [[*flags, *grid.words, f"hydra.callbacks.plan.runs={runs}"] for grid in grids]


def restricted(grids: list[Grid], group: str, typed: list[str]) -> list[Grid]:
    """The grids that have a typed option, with those; what none has goes to the first of them."""
    kept = [grid.having(group, typed) for grid in grids]
    kept[0] = [
        option for option in typed if option in kept[0] or not any(option in k for k in kept)
    ]
    return [
        grid.with_only(group, options) for grid, options in zip(grids, kept, strict=True) if options
    ]


def search_path(config_dir: str | None) -> ConfigSearchPath:
    """Where Hydra looks for configs: in the user's folder, if there is one, and in ours."""
    path = create_config_search_path(str(conf_dir()))
    if config_dir is not None:
        place = f"file://{os.path.abspath(config_dir)}"
        path.prepend("command-line", place, SearchPathQuery(provider="schema"))
    return path


def _composed(given: argparse.Namespace, more: list[str]) -> Grid:
    """A grid as Hydra will find it."""
    words = [*given.overrides, *more]
    config: Any = ConfigLoaderImpl(search_path(given.config_dir)).load_configuration(
        "config", words, RunMode.MULTIRUN
    )
    params = {str(key): str(value) for key, value in config.hydra.sweeper.params.items()}
    swept = OverridesParser.create().parse_overrides([f"{k}={v}" for k, v in params.items()])
    options = {override.get_key_element(): values_of(override) for override in swept}
    return Grid(params, {group: options[group] for group in _GROUPS if group in options}, words)
