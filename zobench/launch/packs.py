"""The runs of a sweep in packs: those that go together are trained side by side in one process."""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from zobench.launch import launch_log
from zobench.launch.job import Job
from zobench.launch.launch import launch, report
from zobench.launch.process import run_jobs
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
        for job, outcome in zip(pack, run_jobs(*pack), strict=True):
            if job.folder.finished or outcome.status == "stopped":
                report(outcome, job.folder)
            else:
                why = f"since its pack has no result: {outcome.reason}"
                print(f"{outcome.run}: alone, {why}", file=sys.stderr)
                launch(job)


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
