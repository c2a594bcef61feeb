"""One command in all processes of torchrun: rank 0 executes it, the others join its run."""

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from zobench.errors import UserError
from zobench.launch.process import logging_to, run_here
from zobench.run.folder import RunFolder
from zobench.run.ranks.group import Group, Lost, joined, started


def lead_or_follow(lead: Callable[[], int]) -> int:
    """Execute the command as rank 0, or join its runs; returns the exit status."""
    group = joined()
    if not group.first:
        return _follow(group)
    try:
        return lead()
    finally:
        if group.sound:
            group.from_first(None)  # ends the other ranks
            group.leave()


def _follow(group: Group) -> int:
    """Carry out the runs whose folders the first rank sends, up to the first failure."""
    try:
        while (path := group.from_first()) is not None:
            folder = RunFolder(Path(path))
            log = folder.path / f"stderr-rank{group.rank}.log"
            with logging_to(log), _quiet():
                [outcome] = run_here([folder], group)
            if outcome.exit_status:
                return outcome.exit_status
            log.unlink()
        group.leave()
    except Lost as lost:
        print(f"error: rank {group.rank}: {lost}", file=sys.stderr)
        return 1
    return 0


@contextmanager
def _quiet() -> Iterator[None]:
    """Discard the process's stdout inside the block."""
    sys.stdout.flush()
    before, nowhere = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.close(nowhere)
    try:
        yield
    finally:
        sys.stdout.flush()
        os.dup2(before, 1)
        os.close(before)


def check_launch(pack_runs: int | None, launcher: str) -> None:
    """Raise UserError for packed runs, and for other launchers, under torchrun."""
    if started() and pack_runs:
        raise UserError(f"pack_runs={pack_runs}: not under torchrun, which carries out one run")
    if started() and not launcher.endswith(".BasicLauncher"):
        raise UserError("hydra/launcher: torchrun is the launcher here; leave it out")


def only(jobs: Sequence[Any]) -> Sequence[Any]:
    """The jobs of a command; UserError if there is more than one."""
    if len(jobs) > 1:
        raise UserError(
            f"{len(jobs)} runs: under torchrun a command carries out one; narrow the grid, or sweep"
            " without torchrun, one run per GPU"
        )
    return jobs
