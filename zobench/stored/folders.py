"""Suites and run folders, found and described without reading settings or metrics."""

import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from zobench.launch.run_lock import owner_of

STATUSES = ("done", "diverged", "running", "failed", "stopped", "damaged")


class Stored(NamedTuple):
    """A run folder: its status, its size on disk in bytes, and the time of its last change."""

    path: Path
    status: str
    size: int
    changed: float


def runs_in(suite: Path) -> list[Path]:
    """The run folders of a suite."""
    return sorted(path for path in suite.iterdir() if is_run(path))


def is_run(path: Path) -> bool:
    """Whether a folder has settings, a result or a failure of a run."""
    return any((path / f).is_file() for f in ("config.yaml", "result.json", "failure.json"))


def stored(path: Path) -> Stored:
    """The description of a run folder."""
    size, changed = measured(path)
    return Stored(path, status_of(path), size, changed)


def status_of(path: Path) -> str:
    """done, diverged, running, failed, stopped, or damaged."""
    try:
        owner = owner_of(path)
        if owner is not None and owner.alive:
            return "running"
        if (path / "result.json").is_file():
            status = str(json.loads((path / "result.json").read_text())["status"])
            return status if status in STATUSES else "damaged"
    except (OSError, ValueError, KeyError, TypeError):
        return "damaged"
    return "failed" if (path / "failure.json").is_file() else "stopped"


def measured(path: Path) -> tuple[int, float]:
    """Size on disk, in bytes, of a folder, and time of the last change of a file below it."""
    size, changed = 0, 0.0
    for place in _below(path):
        try:
            about = place.lstat()
        except FileNotFoundError:  # removed meanwhile, such as a temporary file
            continue
        size += about.st_blocks * 512
        if not stat.S_ISDIR(about.st_mode):
            changed = max(changed, about.st_mtime)
    return size, changed or path.stat().st_mtime


def _below(path: Path) -> Iterator[Path]:
    yield path
    for folder, folders, files in os.walk(path):
        yield from (Path(folder) / name for name in (*folders, *files))


def shown_size(size: float) -> str:
    """`512 B`, `14 kB`, `3.2 GB`; units of 1,000."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 999.5:
            return f"{size:.0f} {unit}" if size >= 9.95 or unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"
