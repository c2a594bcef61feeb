"""`zobench rm SUITE|RUN ...`: remove suites and runs that no process is working on."""

import argparse
import shutil
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from zobench.errors import UserError
from zobench.launch import launch_log
from zobench.report.runs import add_runs, suites
from zobench.stored.folders import is_run, measured, runs_in, shown_size, status_of

_ASIDE = ".removed-"  # prefix of a folder in the folder of runs, for what is being removed


def main(arguments: Sequence[str]) -> int:
    """Ask, then remove; exit status 1 if the answer is no."""
    parser = argparse.ArgumentParser(
        prog="zobench rm",
        description="Remove suites, or single runs, with all their files. It asks first, and"
        " refuses runs that a process is working on.",
        epilog="example: zobench rm scratch rates/dd16f903",
    )
    name = "a suite; or a run: SUITE/RUN, SUITE/ID or the path of its folder"
    parser.add_argument("names", metavar="SUITE|RUN", nargs="+", help=name)
    parser.add_argument("--yes", action="store_true", help="do not ask")
    add_runs(parser)
    given = parser.parse_args(arguments)
    places = list(dict.fromkeys(place_of(given.runs, name) for name in given.names))
    runs = [run for place in places for run in ([place] if is_run(place) else runs_in(place))]
    refuse_running(given.runs, places, runs)
    size = shown_size(sum(measured(place)[0] for place in places))
    named = ", ".join(place.name for place in places)
    if not (given.yes or _agreed(f"remove {named}: {len(runs)} runs, {size}")):
        print("nothing was removed")
        return 1
    for place in places:
        remove(given.runs, place)
    print(f"removed {named}: {len(runs)} runs, {size}")
    return 0


def place_of(root: Path, name: str) -> Path:
    """The folder of a suite or run; UserError if there is none of that name, or several."""
    known = suites(root)
    if name in known:
        if not runs_in(root / name):
            raise UserError(f"{root / name}: no runs in it; remove the folder by hand")
        return root / name
    path = Path(name)
    if is_run(path) and path.resolve().parent.parent == root.resolve():
        return root / path.resolve().relative_to(root.resolve())
    suite, _, run = name.partition("/")
    runs = runs_in(root / suite) if suite in known and run else []
    found = [path for path in runs if path.name == run or path.name.endswith(f"-{run}")]
    if len(found) != 1:
        what = f"{len(found)} runs" if found else "no suite or run"
        raise UserError(f"{name}: {what} of this name in {root}; `zobench list` shows them")
    return found[0]


def refuse_running(root: Path, places: Sequence[Path], runs: Sequence[Path]) -> None:
    """Raise UserError for a run that a process is working on, and for a suite being launched."""
    for run in runs:
        if status_of(run) == "running":
            raise UserError(f"{run}: is running; stop it first, nothing was removed")
    for place in places:
        for log in logs_of(root, place.name):
            if launch_log.living(launch_log.rows_of(log)):
                raise UserError(f"{place}: a command is launching its runs; stop it first")


def logs_of(root: Path, suite: str) -> list[Path]:
    """The launch logs of a suite."""
    logs = sorted((root / launch_log.FOLDER).glob("*.jsonl"))
    return [log for log in logs if (launch_log.rows_of(log) or [{}])[0].get("suite") == suite]


def remove(root: Path, place: Path) -> None:
    """Remove a suite or run, by a rename first, so that nobody sees half of it."""
    if not is_run(place):
        for log in logs_of(root, place.name):
            log.unlink(missing_ok=True)
    for old in root.glob(f"{_ASIDE}*"):  # an earlier removal was killed
        shutil.rmtree(old, ignore_errors=True)
    aside = Path(tempfile.mkdtemp(prefix=_ASIDE, dir=root))
    place.rename(aside / place.name)
    shutil.rmtree(aside)
    with suppress(OSError):
        place.parent.rmdir()  # a suite without runs; the folder of runs if it is empty


def _agreed(question: str) -> bool:
    if not sys.stdin.isatty():
        raise UserError("zobench rm: asks on a terminal only; pass --yes")
    return input(f"{question}? [y/N] ").strip().lower() in ("y", "yes")
