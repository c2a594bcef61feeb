"""`zobench submit RUN_FOLDER`: verify a finished run and pack it as an entry of the registry."""

import argparse
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from zobench.errors import UserError
from zobench.names import searched
from zobench.registry.consistency import inconsistencies
from zobench.registry.entry import ENTRY, Entry, Tuning, checked_name, digests, packed, place_in
from zobench.registry.labels import mislabelled
from zobench.registry.replaying import NOT, replay
from zobench.report.runs import add_runs, read_suite
from zobench.report.workloads import spent
from zobench.run.folder import RunFolder, read_json

GROUPS = (
    "task",
    "model",
    "tuning",
    "optimizer",
)  # choices that a run and its search have in common


def submit(
    folder: RunFolder,
    results: Path,
    who: str,
    tuning: Tuning,
    *,
    tolerance: float = 0.0,
    no_replay: str | None = None,
) -> Path:
    """Pack a finished run as an entry, all of it or nothing.

    Args:
        folder: of the run, which may have diverged.
        results: the folder of all entries; made where it does not exist.
        who: the name of the person or group.
        tuning: what choosing the run's settings has cost.
        tolerance: relative, for scores of the replay; 0 is the same bits.
        no_replay: why the run is not replayed; None replays it where its model is at hand.

    Returns:
        The folder of the entry.

    Raises:
        UserError: the run is not finished or already there, its files disagree with each other,
            with its labels or with the replay, or they name a path of this machine.
    """
    who = checked_name(who)
    if not folder.finished:
        raise UserError(f"{folder.path}: not finished; launch the run again, which resumes it")
    files, meta = packed(folder), read_json(folder.meta)
    place = place_in(results, meta)
    if place.exists():
        raise UserError(f"{place}: exists already; remove it to submit the run again")
    results.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=results, prefix=".submit-") as made:
        entry = Path(made) / place.parent.name / place.name
        entry.mkdir(parents=True)
        for name, data in files.items():
            (entry / name).write_bytes(data)
        _refuse(folder, inconsistencies(entry))
        _refuse(folder, mislabelled(entry), "what is not that option needs a yaml of its own")
        if no_replay is None:
            verified, differences = replay(folder, tolerance)
            _refuse(folder, differences)
        else:
            verified = f"{NOT}: {no_replay}"
        date, hashes = datetime.now(UTC).date().isoformat(), digests(files)
        about = Entry(who, verified, tuning, date, meta.get("commit"), hashes)
        (entry / ENTRY).write_text(about.text())
        place.parent.mkdir(exist_ok=True)
        entry.rename(place)
    return place


def search_cost(runs: Path, suite: str, choices: Mapping[str, Any]) -> Tuning:
    """Count the runs of a search for the settings of a row, and their forwards, of any status.

    Args:
        runs: the folder of all runs.
        suite: of the search.
        choices: of the run; counted is what has the same task, model, tuning and optimizer. The
            search of a task is that of its held-out variants, too.

    Raises:
        UserError: the suite has no such run.
    """
    found = read_suite(runs, suite).frame
    for group in GROUPS:
        label = str(choices.get(group))
        found = found[found[group].isin([label, searched(label)])]
    if found.empty:
        sought = ", ".join(f"{group}={choices.get(group)}" for group in GROUPS)
        raise UserError(f"--search {suite}: has no run with {sought}")
    total = sum(spent(runs / suite / folder, "cost/forwards") for folder in found["folder"])
    return Tuning(int(total), len(found), suite)


def main(argv: list[str]) -> int:
    """Command line of `zobench submit`; prints the folder of the entry."""
    parser = argparse.ArgumentParser(
        "zobench submit",
        description="Verify a finished run by replaying it, and pack it as an entry of the registry"
        " of results: settings, result and evidence, without weights and without the machine's"
        " names. What choosing its settings has cost has to be stated.",
        epilog="example: zobench submit runs/tiny/RUN --who 'A. Name' --search tiny_search",
    )
    parser.add_argument("folder", metavar="RUN_FOLDER", type=Path, help="of a finished run")
    parser.add_argument("--to", metavar="FOLDER", type=Path, default=Path("results"))
    parser.add_argument("--who", required=True, help="name of the person or group")
    parser.add_argument("--search", metavar="SUITE", help="count the same row's runs of this suite")
    parser.add_argument("--tuning-forwards", metavar="N", type=int, help="instead: of all trials")
    parser.add_argument("--trials", metavar="N", type=int, help="and their number; 0: none")
    parser.add_argument("--tolerance", type=float, default=0.0, help="relative (0: the same bits)")
    parser.add_argument(
        "--no-replay",
        metavar="WHY",
        nargs="?",
        const="left out by its author",
        help="do not replay; the entry shows the reason",
    )
    add_runs(parser)
    args = parser.parse_args(argv)
    if not 0.0 <= args.tolerance < 1.0:
        raise UserError(f"--tolerance {args.tolerance}: must be at least 0 and below 1")
    folder = RunFolder(args.folder)
    tuning = _tuning(folder, args)
    options = {"tolerance": args.tolerance, "no_replay": args.no_replay}
    place = submit(folder, args.to, args.who, tuning, **options)
    result, entry = folder.ended(), Entry.read(place)
    ended = "" if result["status"] == "done" else f", {result['status']}: {result['reason']}"
    print(f"{place}: {entry.verified}{ended}")
    if (entry.commit or "-dirty").endswith("-dirty"):
        print(
            "the run is not from a commit alone: run it again from a clean checkout to contribute"
        )
    return 0


def _tuning(folder: RunFolder, args: argparse.Namespace) -> Tuning:
    """The tuning budget that the command line gives, in one way; else UserError."""
    stated = args.tuning_forwards is not None and args.trials is not None
    partly = args.tuning_forwards is not None or args.trials is not None
    if args.search and not partly:
        meta = read_json(folder.meta) if folder.meta.is_file() else {}
        return search_cost(args.runs, args.search, meta.get("choices", {}))
    if stated and not args.search:
        return Tuning(args.tuning_forwards, args.trials)
    raise UserError(
        "what has choosing the settings cost? give --search SUITE, or --tuning-forwards N and"
        " --trials N (both 0 where nothing was tried)"
    )


def _refuse(
    folder: RunFolder, differences: list[str], hint: str = "`zobench verify` shows all"
) -> None:
    """Raise UserError if a run is not what its files or labels say."""
    if differences:
        more = f" (and {len(differences) - 1} more)" if len(differences) > 1 else ""
        raise UserError(f"{folder.path}: {differences[0]}{more}; {hint}. Not submitted")
