"""Hashes of the files that a run reads: data, model and the user's own code.

A run's id is a hash of its settings, which only name files. `inputs` in meta.json holds hashes of
their content, so that no later attempt uses other rows or weights under the same id.
"""

import hashlib
import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

from zobench.build import build
from zobench.errors import UserError
from zobench.models.files import files_of, is_from_hub
from zobench.paths import place_of
from zobench.run.folder import RunFolder, damaged, read_json, write_json
from zobench.settings import RunSettings
from zobench.targets import function_named, located, targets_in
from zobench.tasks.own import named_functions

# the settings that name the files
DATA, MODEL, ROWS, CODE = "task.data_dir", "model.path", "task.source", "_target_"
_PARTS = ("model", "tuning", "task", "optimizer")  # settings whose code determines the numbers
_LIBRARIES = ("zobench.", "torch.", "transformers.")  # meta.json has their versions
_SETTLED = 2 * 10**9  # ns: a younger file may change again within one tick of its time stamp
_STAMPS = ("size", "mtime_ns", "ctime_ns", "inode")  # equal stamps: the same file, as in git

Files = dict[str, dict[str, Any]]  # by name: stamps, whether the file was settled, and sha256
Inputs = dict[str, Files]  # by setting


class InputFiles:
    """The files of a run's data and model, listed before they are read."""

    def __init__(self, settings: RunSettings, task: Any) -> None:
        self._settings, self._task = settings, task
        self._before = {path: _stamps(path) for *_, path in self._files()}

    def inputs(self) -> Inputs:
        """The files' hashes, after they were read; UserError if one has changed meanwhile."""
        found: Inputs = {}
        files = self._files()  # again: files of the hub may have been downloaded since
        with ThreadPoolExecutor(4) as pool:
            digests = list(pool.map(_digest, [path for *_, path in files]))
        for (key, name, path), digest in zip(files, digests, strict=True):
            stamps = _stamps(path)
            before = self._before.get(path)
            if before is not None and any(stamps[part] != before[part] for part in _STAMPS):
                raise UserError(f"{key}: {path} changed while it was read; launch the run again")
            found.setdefault(key, {})[name] = {**stamps, "sha256": digest}
        rows: Mapping[str, str] = getattr(self._task, "row_digests", dict)()
        if rows:
            found[ROWS] = {name: {"sha256": digest} for name, digest in rows.items()}
        return found

    def _files(self) -> list[tuple[str, str, Path]]:
        """Setting, name and path of each file."""
        by_key = {DATA: _data_files(self._settings, self._task)}
        by_key |= {MODEL: _model_files(self._settings), CODE: _code_files(self._settings)}
        return [(key, name, path) for key, files in by_key.items() for name, path in files.items()]


def check_inputs(folder: RunFolder, settings: RunSettings, now: Inputs) -> None:
    """Raise UserError unless files and rows are those that the run began with, if it has hashes."""
    known = _known(folder)
    for key in known.keys() & now.keys():
        _compare(folder, settings, key, known[key], now[key])


def check_unchanged(
    folder: RunFolder, settings: RunSettings, parts: tuple[str, ...] = (DATA, MODEL, CODE)
) -> None:
    """Raise UserError if an existing run has read other files than it would read now.

    Files with the same size, times and inode are not read again; of the others the content counts,
    and meta.json gets their new stamps. Data or models that no longer exist are not compared.
    """
    known = _known(folder)
    changed = False
    for key in (key for key in parts if key in known):
        now: Files = {}
        for name, path in _files_now(key, settings).items():
            before, stamps = known[key].get(name), _stamps(path)
            if before is None or not _trusted(before, stamps):
                now[name] = {**stamps, "sha256": _digest(path)}
                changed = True
            else:
                now[name] = before
        if now:
            _compare(folder, settings, key, known[key], now)
            known[key] |= {name: now[name] for name in known[key] if name in now}
    if changed:
        with suppress(OSError):  # a read-only folder is compared again each time
            write_json(folder.meta, {**read_json(folder.meta), "inputs": known})


def digests_in(inputs: Inputs) -> dict[str, str]:
    """The hashes by setting and name, without stamps, which differ between machines."""
    return {
        f"{key} {name}": entry["sha256"]
        for key, files in inputs.items()
        for name, entry in files.items()
    }


def _known(folder: RunFolder) -> Inputs:
    """The inputs in meta.json; empty for a run of an older zobench. UserError if damaged."""
    inputs: Inputs = read_json(folder.meta).get("inputs", {}) if folder.meta.is_file() else {}
    try:
        entries = [entry for files in inputs.values() for entry in files.values()]
        whole = all(isinstance(entry["sha256"], str) for entry in entries)
    except (AttributeError, TypeError, KeyError):
        whole = False
    if not whole:
        raise damaged(folder.meta)
    return inputs


def _files_now(key: str, settings: RunSettings) -> dict[str, Path]:
    """The files that would be read now, by name; none if the data folder no longer exists."""
    if key != DATA:
        return _model_files(settings) if key == MODEL else _code_files(settings)
    data_dir = settings.task.get("data_dir")
    if data_dir is not None and not place_of(data_dir).exists():
        return {}
    return _data_files(settings, _task(json.dumps(settings.task, sort_keys=True)))


def _data_files(settings: RunSettings, task: Any) -> dict[str, Path]:
    """Files by their path below the data folder; by their own name if there is no folder."""
    data_dir = settings.task.get("data_dir")
    folder = None if data_dir is None or not place_of(data_dir).is_dir() else place_of(data_dir)
    paths: Sequence[Path] = getattr(task, "input_files", list)()
    return {p.name if folder is None else os.path.relpath(p, folder): p for p in paths}


def _model_files(settings: RunSettings) -> dict[str, Path]:
    return {path.name: path for path in files_of(settings.model)}


def _code_files(settings: RunSettings) -> dict[str, Path]:
    """The user's own Python files that the settings name."""
    named = [pair for part in _PARTS for pair in targets_in(getattr(settings, part), part)]
    objects = [located(target, key) for key, target in named]
    objects += [function_named(name, key) for key, name in named_functions(settings.task)]
    found = {}
    for one in objects:
        module = sys.modules[one.__module__]
        if module.__file__ and not f"{module.__name__}.".startswith(_LIBRARIES):
            found[f"{module.__name__}.py"] = Path(module.__file__)
    return found


@lru_cache(maxsize=64)
def _task(node: str) -> Any:
    """The task of some settings, cached for the runs of a sweep."""
    return build(json.loads(node), "task")


def _compare(folder: RunFolder, settings: RunSettings, key: str, known: Files, now: Files) -> None:
    part, _, setting = key.partition(".")
    value = getattr(settings, part).get(setting) if setting else None
    named = f"{key}={value}" if isinstance(value, str) else key
    added, removed = sorted(now.keys() - known.keys()), sorted(known.keys() - now.keys())
    if key == MODEL and isinstance(value, str) and is_from_hub(value):
        added = []  # files of the hub are downloaded on demand
    changed = sorted(n for n in known.keys() & now.keys() if known[n]["sha256"] != now[n]["sha256"])
    if changed:
        difference = f"{changed[0]} has changed since this run read it"
    elif added and removed:
        difference = f"{added[0]} would be read now, where this run has read {removed[0]}"
    elif added:
        difference = f"{added[0]} would be read now, which was not there when this run began"
    elif removed:
        difference = f"{removed[0]}, which this run has read, would not be read now"
    else:
        return
    raise UserError(
        f"{named}: {difference}. Restore the old file, choose another suite, or remove"
        f" {folder.path} to start over"
    )


def _stamps(path: Path) -> dict[str, int | bool]:
    """Size, times and inode, and whether the file is settled: only then are equal stamps safe."""
    try:
        stat = path.stat()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    stamps = {"size": stat.st_size, "mtime_ns": stat.st_mtime_ns, "ctime_ns": stat.st_ctime_ns}
    settled = max(stat.st_mtime_ns, stat.st_ctime_ns) + _SETTLED < time.time_ns()
    return {**stamps, "inode": stat.st_ino, "settled": settled}


def _trusted(before: Mapping[str, Any], stamps: Mapping[str, int | bool]) -> bool:
    """Whether the file is unchanged: its stamps are equal, and it was settled when it was read."""
    return bool(before.get("settled")) and all(before.get(n) == stamps[n] for n in _STAMPS)


def _digest(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
