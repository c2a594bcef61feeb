"""Hydra's face of a sub-command: a command line in, composed settings out."""

import argparse
import math
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback

from zobench.errors import UserError
from zobench.paths import conf_dir
from zobench.targets import admit


def hydra_app(arguments: list[str], config_name: str, task: Callable[[Any], None]) -> None:
    """Hand the command line to Hydra, which calls the task with each job's settings.

    Exceptions come through as they are; `--cfg` and `--help` call nothing.
    """
    import hydra

    from zobench.launchers import attend
    from zobench.schema import register

    register()
    attend()
    _check_groups(arguments)
    _make_importable(arguments)
    os.environ["HYDRA_FULL_ERROR"] = "1"
    sys.argv = [sys.argv[0], *arguments]
    hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name=config_name)(task)()


class Plan(Callback):
    """Notes what a command is going to launch before it does (conf/config.yaml names it)."""

    def on_run_start(self, config: Any, **kwargs: Any) -> None:
        del kwargs
        self._note(config, 1)

    def on_multirun_start(self, config: Any, **kwargs: Any) -> None:
        del kwargs
        self._note(config, jobs_in(config))

    def _note(self, config: Any, runs: int) -> None:
        from zobench.launch import launch_log

        launch_log.begin(config.runs_root, config.suite, _as_typed(config), runs)


def jobs_in(config: Any) -> int:
    """How many jobs Hydra makes of a multirun; the later of two values of a key counts."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    params = [f"{key}={value}" for key, value in (config.hydra.sweeper.params or {}).items()]
    given = [*params, *_as_typed(config)]
    values = {
        override.get_key_element(): len(list(override.sweep_string_iterator()))
        if override.is_discrete_sweep()
        else 1
        for override in OverridesParser.create().parse_overrides(given)
    }
    return math.prod(values.values())


def _as_typed(config: Any) -> list[str]:
    """The overrides of the command line, of which some may be interpolations of theirs."""
    from omegaconf import OmegaConf

    words: Any = OmegaConf.to_container(config.hydra.overrides.task, resolve=False)
    return list(words)


def _make_importable(arguments: Sequence[str]) -> None:
    """Let the yaml files of a `--config-dir` name Python files beside them, in every run too."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--config-dir", "-cd")
    if folder := parser.parse_known_args(list(arguments))[0].config_dir:
        admit(Path(folder))


def _check_groups(arguments: Sequence[str]) -> None:
    """Raise UserError for a config group that is given null, a number or nothing at all."""
    for argument in arguments:
        group, equals, option = argument.partition("=")
        if equals and (conf_dir() / group).is_dir() and re.fullmatch(r"null|[-+.\d]*", option):
            raise UserError(f"{argument}: give the name of an option, as in optimizer=mezo")
