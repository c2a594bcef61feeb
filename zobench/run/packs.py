"""The runs of a sweep in packs: those that go together are trained side by side in one process."""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from zobench.run.folder import RunFolder, read_json
from zobench.run.kin import kin
from zobench.run.launch import Job, ended, launch, report, stopped
from zobench.run.nursery import carry_out
from zobench.run.stop import REQUEUE


def launch_in_packs(jobs: Sequence[Job], most: int) -> None:
    """Launch every job, up to `most` that go together at a time.

    A run that its pack has left without a result, say for want of memory, is launched by itself.
    """
    for pack in _packs(jobs, most):
        if len(pack) == 1:
            launch(pack[0])
            continue
        folders = [job.folder for job in pack]
        for job, folder in zip(pack, folders, strict=True):
            job.begin(folder)
        code = carry_out(*folders)
        for job, folder in zip(pack, folders, strict=True):
            if folder.result.is_file():
                report(ended(folder), folder)
            elif code == REQUEUE:
                report(stopped(folder), folder)
            else:
                print(f"{folder.path.name}: alone, {_why(folder, code)}", file=sys.stderr)
                launch(job)


def _why(folder: RunFolder, code: int) -> str:
    """Why its pack has no result for a run."""
    if folder.failure.is_file():
        return f"since its pack failed: {read_json(folder.failure)['reason']}"
    return f"since its pack ended with status {code}"


def _packs(jobs: Sequence[Job], most: int) -> Iterator[Sequence[Job]]:
    """Jobs that go together; what is done already, or stands there twice, goes alone."""
    alike: dict[str, list[Job]] = {}
    seen: set[Path] = set()
    for number, job in enumerate(jobs):
        kind, folder = kin(job.settings), job.folder
        if kind is None or folder.result.is_file() or folder.path in seen:
            kind = f"alone {number}"
        seen.add(folder.path)
        alike.setdefault(kind, []).append(job)
    for kindred in alike.values():
        yield from (kindred[at : at + most] for at in range(0, len(kindred), most))
