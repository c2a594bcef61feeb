"""LM-BFF's few-shot folders (Gao et al. 2021): train and dev per seed, one test for all seeds."""

from pathlib import Path

from zobench.errors import UserError
from zobench.tasks import files
from zobench.tasks.shown import listed

_DEV = ("dev", "dev_matched")
_TEST = ("test", "test_matched")
_ORIGINAL = (*_DEV, *_TEST)  # GLUE's test rows have no labels: LM-BFF tests on its dev rows


def shot_files(place: Path, shots: str) -> dict[str, Path]:
    """The files of train, dev and test for `place/SHOTS`, such as 16-13 (16 per class, seed 13).

    The seeds share one test file, which is taken from a folder beside it where it has none:
    the first by name, and last the full data set in `original`.
    """
    folder = place / shots
    if not folder.is_dir():
        there = listed(sorted(p.name for p in place.glob("*-*") if p.is_dir())) or "none"
        raise UserError(
            f"task.data_dir={place}: no folder {shots} (task.source.shots); there is {there}"
        )
    return {
        "train": files.find(folder, ("train",)),
        "dev": files.find(folder, _DEV),
        "test": _test(place, folder),
    }


def _test(place: Path, folder: Path) -> Path:
    beside = sorted(p for p in place.iterdir() if p.is_dir() and p.name != "original")
    found = (files.in_folder(other, _TEST) for other in (folder, *beside))
    path = next(filter(None, found), None) or files.in_folder(place / "original", _ORIGINAL)
    if path is None:
        raise UserError(
            f"task.data_dir={place}: no test file in {folder.name} or a folder beside it;"
            " copy the task's test rows there as test.tsv (or .csv)"
        )
    return path
