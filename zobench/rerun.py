"""`zobench rerun FOLDER ...`: launch the runs of folders again, from their own settings."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from zobench.errors import UserError
from zobench.launch import launch_log
from zobench.launch.job import Job
from zobench.launch.launch import carry_out, launch
from zobench.launch.signals import Command
from zobench.targets import admit


def main(arguments: Sequence[str]) -> int:
    """Resume or retry the unfinished runs; say which ones are finished."""
    parser = argparse.ArgumentParser(
        prog="zobench rerun",
        description="Launch runs again from the config.yaml in their folders: stopped and killed"
        " ones resume, failed ones are tried again. A finished run stays as it is.",
        epilog="example: zobench rerun runs/scratch/synthetic_reviews-tiny-full-mezo-s0-dd16f903",
    )
    parser.add_argument("folders", metavar="FOLDER", nargs="+", type=Path, help="of a run")
    parser.add_argument("--config-dir", "-cd", type=Path, help="folder of your own configs")
    given = parser.parse_args(arguments)
    if given.config_dir is not None:
        admit(given.config_dir)
    jobs = [_job(path) for path in given.folders]
    waiting = [job for job in jobs if not job.folder.finished]
    for job in jobs:
        if job.folder.finished:
            path, status = job.folder.path, job.folder.ended()["status"]
            print(f"{path.name}: finished ({status}); to train it again: zobench rm {path}")
    if not waiting:
        return 0
    first = waiting[0].folder.path.resolve()

    def work(_: Command) -> None:
        root, suite = str(first.parent.parent), first.parent.name
        launch_log.begin(root, suite, ["rerun", *map(str, given.folders)], len(waiting))
        for job in waiting:
            launch(job)

    return carry_out(work)


def _job(path: Path) -> Job:
    if not (path / "config.yaml").is_file():
        raise UserError(f"{path}: no run folder; it has no config.yaml")
    return Job.begun(path)
