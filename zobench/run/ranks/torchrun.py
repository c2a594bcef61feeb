"""One command in all processes of torchrun: rank 0 goes through it, the others do its run, too."""

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from zobench.errors import UserError
from zobench.run.folder import RunFolder
from zobench.run.ranks.group import Group, Lost, joined, started


def lead_or_follow(lead: Callable[[], int]) -> int:
    """The exit status: of the command, for the first rank, and of the run for the others."""
    group = joined()
    if not group.first:
        return _follow(group)
    try:
        return lead()
    finally:
        if group.sound:
            group.from_first(None)  # there is nothing more to do
            group.leave()


def carry_out_here(folder: RunFolder) -> int:
    """Carry out a run in this process, as the first rank, with the others; its exit status."""
    group, path = joined(), folder.path.resolve()
    for old in path.glob("stderr-rank*.log"):
        old.unlink()
    try:
        group.from_first(str(path))
    except Lost as lost:
        print(f"error: {lost}", file=sys.stderr)
        return 1
    status = _carry_out(path, path / folder.log.name)
    group.sound = status == 0  # else the others have ended, or will notice that this one has
    return status


def _follow(group: Group) -> int:
    """Do the runs that the first rank names, up to one that fails; how the last one ended."""
    try:
        while (named := group.from_first()) is not None:
            log = Path(named) / f"stderr-rank{group.rank}.log"
            if status := _carry_out(Path(named), log, quiet=True):
                return status
            log.unlink()
        group.leave()
    except Lost as lost:
        print(f"error: rank {group.rank}: {lost}", file=sys.stderr)
        return 1
    return 0


def _carry_out(path: Path, log: Path, *, quiet: bool = False) -> int:
    from zobench.run.__main__ import main

    with _written_to(2, log), _written_to(1, Path(os.devnull) if quiet else None):
        return main([str(path)])


@contextmanager
def _written_to(number: int, path: Path | None) -> Iterator[None]:
    """What is written to stdout (1) or stderr (2) goes to a file inside; None is where it went."""
    if path is None:
        yield
        return
    stream = sys.stdout if number == 1 else sys.stderr
    stream.flush()
    before, file = os.dup(number), os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    os.dup2(file, number)
    os.close(file)
    try:
        yield
    finally:
        stream.flush()
        os.dup2(before, number)
        os.close(before)


def check_launch(pack_runs: int | None, launcher: str) -> None:
    """Raise UserError for what starts processes of its own under torchrun, or packs runs."""
    if started() and pack_runs:
        raise UserError(f"pack_runs={pack_runs}: not under torchrun, which carries out one run")
    if started() and not launcher.endswith(".BasicLauncher"):
        raise UserError("hydra/launcher: torchrun is the launcher here; leave it out")


def only(jobs: Sequence[Any]) -> Sequence[Any]:
    """The jobs of a command; UserError where there is more than one."""
    if len(jobs) > 1:
        raise UserError(
            f"{len(jobs)} runs: under torchrun a command carries out one; narrow the grid, or sweep"
            " without torchrun, one run per GPU"
        )
    return jobs
