"""The runs of a sweep in packs: runs that can share a process are trained side by side."""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from zobench.launch import launch_log
from zobench.launch.job import Job
from zobench.launch.launch import launch, report
from zobench.launch.process import run_jobs
from zobench.run.together import sharing_key


def launch_in_packs(jobs: Sequence[Job], size: int) -> None:
    """Launch all jobs, up to `size` in a process; runs that their pack left unfinished, alone."""
    for pack in _packs(jobs, size):
        if len(pack) == 1:
            launch(pack[0])
            continue
        if launch_log.stops(launch_log.own()):
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


def _packs(jobs: Sequence[Job], size: int) -> Iterator[Sequence[Job]]:
    """Jobs that can share a process; finished and repeated ones are alone."""
    groups: dict[str, list[Job]] = {}
    seen: set[Path] = set()
    for number, job in enumerate(jobs):
        key, folder = sharing_key(job.settings), job.folder
        if key is None or folder.result.is_file() or folder.path in seen:
            key = f"alone {number}"
        seen.add(folder.path)
        groups.setdefault(key, []).append(job)
    for group in groups.values():
        yield from (group[start : start + size] for start in range(0, len(group), size))
