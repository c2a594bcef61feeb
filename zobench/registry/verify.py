"""`zobench verify FOLDER`: check one run, or all entries of the registry below a folder."""

import argparse
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from zobench.errors import UserError
from zobench.registry.consistency import inconsistencies
from zobench.registry.entry import ENTRY, damage
from zobench.registry.labels import mislabelled
from zobench.registry.replaying import NOT, copied, replay, train_again
from zobench.run.folder import RunFolder
from zobench.run.verify import Verification

Replay = Callable[[RunFolder, float], tuple[str, list[str]]]
_DAMAGED = (AttributeError, EOFError, KeyError, OSError, RecursionError, TypeError, ValueError)


def entries(path: Path) -> list[Path]:
    """The entries at or below a folder; none if it has no entry.json in it.

    A folder next to entries that has a run's settings and no entry.json counts, too.
    """
    if not any(path.rglob(ENTRY)):
        return []
    found = {file.parent for name in (ENTRY, "config.yaml") for file in path.rglob(name)}
    return sorted(found)


def check(path: Path, tolerance: float, replays: Sequence[Replay]) -> tuple[str, list[str]]:
    """Check an entry's hashes, whether its files and labels agree, and then replay a copy of it.

    Args:
        path: the folder of the entry.
        tolerance: relative, for scores; 0 is the same bits.
        replays: `replay`, `train_again` or both.

    Returns:
        How the run was verified, and a line per difference.
    """
    found: list[str] = []
    phrases: list[str] = []
    with TemporaryDirectory() as place:
        try:
            found += damage(path)
            found += [*inconsistencies(path), *mislabelled(path)]
            copy = copied(RunFolder(path), Path(place))
            for again in replays:
                phrase, differences = again(copy, tolerance)
                phrases.append(phrase)
                found += [line.replace(f"{copy.path}/", "") for line in differences]
        except UserError as error:
            text = str(error).replace(str(Path(place) / path.name), str(path))
            found.append(" ".join(text.split()))
        except _DAMAGED as error:  # whatever someone has written into these files
            found.append(f"cannot be checked: {type(error).__name__}: {error}")
    return ", ".join(phrases) or f"{NOT}: its files cannot be used", list(dict.fromkeys(found))


def main(argv: list[str]) -> int:
    """Command line of `zobench verify`; prints a line per difference, and then exits with 1."""
    parser = argparse.ArgumentParser(
        "zobench verify",
        description="Rebuild a finished run's weights from its ledger, evaluate them again on dev"
        " and test, and compare with result.json, best.safetensors and the predictions. Of entries"
        " of the registry, check first that no file was changed, and that files and labels agree.",
        epilog="examples: zobench verify runs/quickstart/RUN; zobench verify results",
    )
    what = "a run folder, an entry, or a folder of entries"
    parser.add_argument("folder", metavar="FOLDER", type=Path, help=what)
    parser.add_argument("--tolerance", type=float, default=0.0, help="relative (0: the same bits)")
    parser.add_argument(
        "--train",
        action="store_true",
        help="also train again, which finds forged ledgers and takes as long as the run did",
    )
    args = parser.parse_args(argv)
    if not 0.0 <= args.tolerance < 1.0:
        raise UserError(f"--tolerance {args.tolerance}: must be at least 0 and below 1")
    if not args.folder.is_dir():
        raise UserError(f"{args.folder}: no such folder")
    replays: list[Replay] = [replay, train_again] if args.train else [replay]
    if found := entries(args.folder):
        return _check_all(found, args.tolerance, replays)
    folder = RunFolder(args.folder)
    verification = Verification(folder, args.tolerance)
    how = verification.run()
    differences = verification.found
    if args.train:
        phrase, more = train_again(folder, args.tolerance)
        how, differences = f"{how}, {phrase}", differences + more
    return _report(args.folder, how, differences)


def _check_all(found: Sequence[Path], tolerance: float, replays: Sequence[Replay]) -> int:
    """Check entries; prints the differences of each, and how many were verified in which way."""
    counts: Counter[str] = Counter()
    wrong = 0
    for path in found:
        how, differences = check(path, tolerance, replays)
        wrong += _report(path, how, differences)
        counts[how] += 1
    if len(found) > 1:
        ways = "; ".join(f"{count} {how}" for how, count in counts.most_common())
        print(f"{len(found)} entries, {wrong} with differences: {ways}")
    return 1 if wrong else 0


def _report(path: Path, how: str, differences: Sequence[str]) -> int:
    """Print a line per difference and one for the folder; returns 1 if there are any."""
    for line in differences:
        print(line)
    if not differences:
        print(f"{path}: as in result.json ({how})")
        return 0
    expected = how if how.startswith(NOT) else f"expected: {how}"
    print(f"{path}: {len(differences)} differences ({expected})")
    return 1
