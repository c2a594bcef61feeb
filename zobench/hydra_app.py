"""Hydra's face of a sub-command: a command line in, composed settings out."""

import argparse
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from zobench.errors import UserError
from zobench.paths import conf_dir
from zobench.targets import admit


def hydra_app(arguments: list[str], config_name: str, task: Callable[[Any], None]) -> None:
    """Hand the command line to Hydra, which calls the task with each job's settings.

    Exceptions come through as they are; `--cfg` and `--help` call nothing.
    """
    import hydra

    from zobench.schema import register

    register()
    _check_groups(arguments)
    _make_importable(arguments)
    os.environ["HYDRA_FULL_ERROR"] = "1"
    sys.argv = [sys.argv[0], *arguments]
    hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name=config_name)(task)()


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
