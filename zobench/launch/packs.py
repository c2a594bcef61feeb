"""The runs of a sweep in packs: those that go together are trained side by side in one process."""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from zobench.launch import launch_log
from zobench.launch.attempt import Ending
from zobench.launch.forkserver import carry_out
from zobench.launch.job import Job, launch, outcome_of, report
from zobench.run.stop import REQUEUE
from zobench.run.together import sharing_key


def launch_in_packs(jobs: Sequence[Job], most: int) -> None:
    """Launch every job, up to `most` that go together at a time.

    A run that its pack has left without a result, say for want of memory, is launched by itself.
    """
    for pack in _packs(jobs, most):
        if len(pack) == 1:
            launch(pack[0])
            continue
        for job in pack:
            launch_log.note({"run": job.folder.path.name, "status": "begun"})
        ending = carry_out(*(job.order() for job in pack))
        for job in pack:
            folder = job.folder
            if folder.finished or ending.status == REQUEUE:
                report(outcome_of(folder, ending), folder)
            else:
                print(f"{folder.path.name}: alone, {_why(ending)}", file=sys.stderr)
                launch(job)


def _why(ending: Ending) -> str:
    """Why its pack has no result for a run."""
    if ending.reason:
        return f"since its pack has no result: {ending.reason}"
    return f"since its pack ended with status {ending.status}"


def _packs(jobs: Sequence[Job], most: int) -> Iterator[Sequence[Job]]:
    """Jobs that go together; what is done already, or stands there twice, goes alone."""
    alike: dict[str, list[Job]] = {}
    seen: set[Path] = set()
    for number, job in enumerate(jobs):
        kind, folder = sharing_key(job.settings), job.folder
        if kind is None or folder.result.is_file() or folder.path in seen:
            kind = f"alone {number}"
        seen.add(folder.path)
        alike.setdefault(kind, []).append(job)
    for kindred in alike.values():
        yield from (kindred[at : at + most] for at in range(0, len(kindred), most))
