"""zobench from Python: overrides in, results and data frames out.

Overrides are those of the command line: `run("optimizer=mezo", "seed=1")`.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zobench.errors import UserError
from zobench.explain import explained

if TYPE_CHECKING:
    import pandas as pd


def compose(*overrides: str) -> dict[str, Any]:
    """The resolved settings of a run.

    Returns:
        Plain data, as in config.yaml of the run's folder.
    """
    from zobench.schema import composed

    return composed(*overrides)


def run(*overrides: str) -> dict[str, Any]:
    """Carry out one run, in a process of its own, unless it has a result already.

    Returns:
        What the folder's result.json holds, and `folder`, its path.

    Raises:
        UserError: Settings or data are wrong, or the run has failed.
    """
    from zobench.cli import job_of
    from zobench.grids import composition

    with _explained():
        job = job_of(*composition(overrides))
    _carry_out([*overrides])
    folder = job.folder
    if not folder.result.is_file():
        raise UserError(f"{folder.path}: the run has no result; {folder.log} says why")
    return {**folder.ended(), "folder": folder.path}


def sweep(*overrides: str) -> "pd.DataFrame":
    """Carry out a grid, as `zobench -m OVERRIDES`; finished runs are skipped.

    Returns:
        The suite's runs, as `load_suite` gives them.

    Raises:
        UserError: Settings are wrong. A run that fails is a row of the frame.
    """
    from zobench.grids import composition

    with _explained():
        config, _ = composition(overrides)
    _carry_out(["-m", *overrides])
    return load_suite(config.suite, config.runs_root)


def load_suite(suite: str, runs: str | Path | None = None) -> "pd.DataFrame":
    """The runs of a suite, one per row: choices, seed, status, and every number of the results.

    Args:
        suite: Name of a folder in the folder of runs.
        runs: The folder of all runs; $ZOBENCH_RUNS, or `runs`, unless given.
    """
    from zobench.report.runs import read_suite

    return read_suite(_root(runs), suite).frame


def table(
    suite: str, runs: str | Path | None = None, *, details: bool = False, **options: str
) -> str:
    """The table of a suite, as `zobench table` prints it.

    Args:
        suite: Name of a folder in the folder of runs.
        runs: The folder of all runs; $ZOBENCH_RUNS, or `runs`, unless given.
        details: With intervals, published numbers, costs and notes.
        options: Those of the command: rows, columns, metric, target, select, baseline, format.
    """
    from zobench.report.table import table as made

    return made(_root(runs), suite, details=details, **options)


def _root(runs: str | Path | None) -> Path:
    return Path(runs or os.environ.get("ZOBENCH_RUNS") or "runs")


@contextmanager
def _explained() -> Iterator[None]:
    """Turn Hydra's errors into UserError, with the text that the command line prints."""
    try:
        yield
    except Exception as error:
        message = explained(error)
        if message is None:
            raise
        raise UserError(message) from error


def _carry_out(arguments: list[str]) -> None:
    """Run a command line in this process; the caller's `sys.argv` and W&B run stay."""
    from zobench.cli import launched
    from zobench.run.loggers.wandb_agent import left

    argv = sys.argv
    try:
        with left():  # what a function of an agent reports is its own affair
            launched(arguments)
    finally:
        sys.argv = argv
