"""`zobench sync [SUITE]`: upload the runs that were logged to W&B offline, one after the other."""

import argparse
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from zobench.errors import UserError
from zobench.report.runs import add_runs, suites
from zobench.report.wandb_login import require_login


class OfflineRun(NamedTuple):
    """The data that W&B stored of one run while it was offline.

    state: waiting, uploaded, or unfinished; the rest of an unfinished run would not be uploaded.
    """

    name: str  # suite/run
    folder: Path
    state: str


def offline_runs(root: Path, names: Sequence[str]) -> Iterator[OfflineRun]:
    """The offline W&B folders in the run folders of some suites, oldest first within a run."""
    for name in names:
        for folder in sorted((root / name).glob("*/wandb/offline-run-*")):
            run = folder.parent.parent
            ended = any((run / end).is_file() for end in ("result.json", "failure.json"))
            if any(folder.glob("*.wandb")):
                state = "uploaded" if is_uploaded(folder) else "waiting" if ended else "unfinished"
                yield OfflineRun(f"{name}/{run.name}", folder, state)


def is_uploaded(folder: Path) -> bool:
    """Whether every file of an offline run has W&B's mark of an upload."""
    return all(file.with_suffix(".wandb.synced").exists() for file in folder.glob("*.wandb"))


def upload(folder: Path) -> str | None:
    """Upload one offline run by `wandb sync`; None when it succeeds, else the reason."""
    command = [sys.executable, "-m", "wandb", "sync", str(folder)]
    environment = {key: value for key, value in os.environ.items() if key != "WANDB_MODE"}
    done = subprocess.run(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    # `wandb sync` exits with 0 even when the server refused the run: its mark is what counts.
    if done.returncode == 0 and is_uploaded(folder):
        return None
    lines = [line.strip() for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    return lines[-1] if lines else f"wandb sync exited with status {done.returncode}"


def main(argv: list[str]) -> int:
    """Command line of `zobench sync`; exit status 1 when a run could not be uploaded."""
    given = _parser().parse_args(argv)
    names = suites(given.runs)
    if given.suite and given.suite not in names:
        raise UserError(f"no suite '{given.suite}' in {given.runs}; there are {', '.join(names)}")
    found = list(offline_runs(given.runs, [given.suite] if given.suite else names))
    waiting = [run for run in found if run.state == "waiting"]
    if waiting and not given.dry_run:
        require_login()
    counts = Counter(run.state for run in found if run.state != "waiting")
    before = counts.pop("uploaded", 0)
    for run in waiting:
        reason = None if given.dry_run else upload(run.folder)
        outcome = "failed" if reason else "to upload" if given.dry_run else "uploaded"
        counts[outcome] += 1
        line = f"{outcome}: {run.name}" + (f": {reason}" if reason else "")
        print(line, file=sys.stderr if reason else sys.stdout, flush=True)
    counts["uploaded before"] = before
    parts = [f"{count} {what}" for what, count in sorted(counts.items()) if count]
    print(", ".join(parts) or "no run was logged to W&B offline")
    return 1 if counts["failed"] else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="zobench sync",
        description="Upload the finished and failed runs that W&B logged offline. Those already "
        "there are skipped, and so are unfinished runs, which may still be running.",
        epilog="example: zobench sync quickstart --dry-run",
    )
    parser.add_argument("suite", metavar="SUITE", nargs="?", help="one suite (default: all)")
    add_runs(parser)
    parser.add_argument("--dry-run", action="store_true", help="only list what would be uploaded")
    return parser
