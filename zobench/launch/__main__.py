"""`python -m zobench.launch FOLDER ...`: carry out the runs of these folders in one process."""

import sys
from pathlib import Path

from zobench.errors import UserError
from zobench.launch.job import Job
from zobench.launch.process import attempt


def main(argv: list[str]) -> int:
    """Exit status 0 for results, 1 for a failure, 75 for a run that was stopped or is elsewhere."""
    paths = [Path(path) for path in argv]
    if not paths or not all((path / "config.yaml").is_file() for path in paths):
        print("usage: python -m zobench.launch FOLDER ... (with a config.yaml)", file=sys.stderr)
        return 2
    try:
        jobs = [Job.begun(path) for path in paths]
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    outcomes = attempt(jobs)
    for job, outcome in zip(jobs, outcomes, strict=True):
        if outcome.reason:
            print(f"{outcome}\n  log: {job.folder.log}", file=sys.stderr)
    return max(outcome.exit_status for outcome in outcomes)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
