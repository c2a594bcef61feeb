"""What a run was made of: the files of its data and its model, known by their content.

The id of a run is a hash of its settings, which name files. `inputs` in meta.json holds what was in
them, so that neither a relaunch nor an interrupted run takes other rows or weights for those.
"""

import hashlib
import json
import os
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

from zobench.build import build
from zobench.errors import UserError
from zobench.models.files import files_of, is_from_hub
from zobench.paths import place_of
from zobench.run.folder import RunFolder, read_json, write_json

DATA, MODEL, ROWS = "task.data_dir", "model.path", "task.source"  # where the inputs are named
_SETTLED = 2 * 10**9  # ns: a file that was changed so shortly before may change within one tick
_STAMPS = ("size", "mtime_ns", "ctime_ns", "inode")  # the same: the same file, as git would say

Inputs = dict[str, dict[str, dict[str, Any]]]  # by setting and name: stamps and sha256


class Seen:
    """The files of a run's data and model as they are before they are read.

    `inputs`, called after that, adds their content. Raises UserError where a file has changed
    meanwhile, and what finding the files raises.
    """

    def __init__(self, settings: Mapping[str, Any], task: Any) -> None:
        self._settings, self._task = settings, task
        self._before = {path: _stamps(path) for _, path in self._named()}

    def inputs(self) -> Inputs:
        found: Inputs = {}
        named = self._named()  # once more: of the hub some are there only now
        with ThreadPoolExecutor(4) as pool:
            digests = list(pool.map(_digest, [path for _, path in named]))
        for (key, path), digest in zip(named, digests, strict=True):
            stamps = _stamps(path)
            before = self._before.get(path)
            if before is not None and any(stamps[name] != before[name] for name in _STAMPS):
                raise UserError(f"{key}: {path} has changed while it was read; launch it again")
            entry = {**stamps, "sha256": digest}
            found.setdefault(key, {})[_name(key, path, self._settings)] = entry
        rows: Mapping[str, str] = getattr(self._task, "row_digests", dict)()
        if rows:
            found[ROWS] = {name: {"sha256": digest} for name, digest in rows.items()}
        return found

    def _named(self) -> list[tuple[str, Path]]:
        data = [(DATA, path) for path in getattr(self._task, "input_files", list)()]
        return data + [(MODEL, path) for path in files_of(self._settings["model"])]


def check_inputs(folder: RunFolder, settings: Mapping[str, Any], now: Inputs) -> None:
    """Raise UserError unless the files and rows are those that the run began with.

    One that began before zobench noted them is not looked at.
    """
    known = _known(folder)
    for key in known.keys() & now.keys():
        _compare(folder, settings, key, known[key], now[key])


def check_unchanged(
    folder: RunFolder, settings: Mapping[str, Any], parts: tuple[str, ...] = (DATA, MODEL)
) -> None:
    """Raise UserError where a run that is there has read other files than it would read now.

    A file whose size, times and inode are as they were is not read again; of another the content
    counts, and what is equal gets its new times in meta.json. Data or a model that are not there
    any more cannot give other numbers, and are not missed.
    """
    known = _known(folder)
    fresh = False
    for key in (key for key in parts if key in known):
        now: dict[str, dict[str, Any]] = {}
        for path in _files_now(key, settings):
            name = _name(key, path, settings)
            before, stamps = known[key].get(name), _stamps(path)
            if before is None or not _trusted(before, stamps):
                now[name] = {**stamps, "sha256": _digest(path)}
                fresh = True
            else:
                now[name] = before
        if now:
            _compare(folder, settings, key, known[key], now)
            known[key] |= {name: now[name] for name in known[key] if name in now}
    if fresh:
        with suppress(OSError):  # a folder that is kept read-only is looked at anew each time
            write_json(folder.meta, {**read_json(folder.meta), "inputs": known})


def digests_in(inputs: Inputs) -> dict[str, str]:
    """The content by name, without what differs from machine to machine."""
    return {
        f"{key} {name}": entry["sha256"]
        for key, files in inputs.items()
        for name, entry in files.items()
    }


def _known(folder: RunFolder) -> Inputs:
    inputs: Inputs = read_json(folder.meta).get("inputs", {}) if folder.meta.is_file() else {}
    return inputs


def _files_now(key: str, settings: Mapping[str, Any]) -> list[Path]:
    """What would be read; nothing where the place itself is gone."""
    if key == MODEL:
        return files_of(settings["model"])
    place = settings["task"].get("data_dir")
    if place is not None and not place_of(place).exists():
        return []
    task = _task(json.dumps(settings["task"], sort_keys=True))
    return list(getattr(task, "input_files", list)())


@lru_cache(maxsize=64)
def _task(node: str) -> Any:
    """The task of some settings: the runs of a sweep often share theirs."""
    return build(json.loads(node))


def _compare(
    folder: RunFolder,
    settings: Mapping[str, Any],
    key: str,
    known: Mapping[str, Mapping[str, Any]],
    now: Mapping[str, Mapping[str, Any]],
) -> None:
    part, _, setting = key.partition(".")
    given = settings[part].get(setting)
    named = f"{key}={given}" if isinstance(given, str) else key
    more, less = sorted(now.keys() - known.keys()), sorted(known.keys() - now.keys())
    if key == MODEL and isinstance(given, str) and is_from_hub(given):
        more = []  # a cache fills as files are wanted
    changed = sorted(n for n in known.keys() & now.keys() if known[n]["sha256"] != now[n]["sha256"])
    if changed:
        what = f"{changed[0]} is not what it was when this run read it: its content has changed"
    elif more and less:
        what = f"{more[0]} would be read now, where this run has read {less[0]}"
    elif more:
        what = f"{more[0]} would be read now, which was not there when this run began"
    elif less:
        what = f"{less[0]}, which this run has read, would not be read now"
    else:
        return
    raise UserError(
        f"{named}: {what}. Bring the old one back, choose another suite, or remove {folder.path}"
        " to begin anew"
    )


def _stamps(path: Path) -> dict[str, int]:
    """What tells without reading that a file is the one it was, and when that was seen."""
    try:
        found = path.stat()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    stamps = {"size": found.st_size, "mtime_ns": found.st_mtime_ns, "ctime_ns": found.st_ctime_ns}
    return {**stamps, "inode": found.st_ino, "seen_ns": time.time_ns()}


def _trusted(before: Mapping[str, Any], stamps: Mapping[str, int]) -> bool:
    """Whether the file is as it was: its stamps are, and had stood for a while when it was read."""
    latest = max(stamps["mtime_ns"], stamps["ctime_ns"])
    return all(before[name] == stamps[name] for name in _STAMPS) and (
        latest + _SETTLED < before["seen_ns"]
    )


def _digest(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error


def _name(key: str, path: Path, settings: Mapping[str, Any]) -> str:
    """Of a file below the data folder its path from there; else its own name."""
    place = settings["task"].get("data_dir") if key == DATA else None
    if place is not None and place_of(place).is_dir():
        return os.path.relpath(path, place_of(place))
    return path.name
