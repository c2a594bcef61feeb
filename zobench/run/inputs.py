"""What a run was made of: files of its data, its model and the user's own code, by their content.

The id of a run is a hash of its settings, which name files. `inputs` in meta.json holds what was in
them, so that neither a relaunch nor an interrupted run takes other rows or weights for those.
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
from zobench.targets import located, targets_in

# the settings that name them
DATA, MODEL, ROWS, CODE = "task.data_dir", "model.path", "task.source", "_target_"
_PARTS = ("model", "tuning", "task", "optimizer")  # whose code makes the numbers
_LIBRARIES = ("zobench.", "torch.", "transformers.")  # meta.json has their versions
_SETTLED = 2 * 10**9  # ns: a file that was changed so shortly before may change within one tick
_STAMPS = ("size", "mtime_ns", "ctime_ns", "inode")  # the same: the same file, as git would say

# by setting and name: stamps, whether they had stood for a while by then, and sha256
Inputs = dict[str, dict[str, dict[str, Any]]]


class Seen:
    """The files of a run's data and model as they are before they are read.

    `inputs`, called after that, adds their content. Raises UserError where a file has changed
    meanwhile, and what finding the files raises.
    """

    def __init__(self, settings: RunSettings, task: Any) -> None:
        self._settings, self._task = settings, task
        self._before = {path: _stamps(path) for *_, path in self._files()}

    def inputs(self) -> Inputs:
        found: Inputs = {}
        files = self._files()  # once more: of the hub some are there only now
        with ThreadPoolExecutor(4) as pool:
            digests = list(pool.map(_digest, [path for *_, path in files]))
        for (key, name, path), digest in zip(files, digests, strict=True):
            stamps = _stamps(path)
            before = self._before.get(path)
            if before is not None and any(stamps[part] != before[part] for part in _STAMPS):
                raise UserError(f"{key}: {path} has changed while it was read; launch it again")
            found.setdefault(key, {})[name] = {**stamps, "sha256": digest}
        rows: Mapping[str, str] = getattr(self._task, "row_digests", dict)()
        if rows:
            found[ROWS] = {name: {"sha256": digest} for name, digest in rows.items()}
        return found

    def _files(self) -> list[tuple[str, str, Path]]:
        """Setting, name and place of each."""
        by_key = {DATA: _data_files(self._settings, self._task)}
        by_key |= {MODEL: _model_files(self._settings), CODE: _code_files(self._settings)}
        return [(key, name, path) for key, files in by_key.items() for name, path in files.items()]


def check_inputs(folder: RunFolder, settings: RunSettings, now: Inputs) -> None:
    """Raise UserError unless the files and rows are those that the run began with.

    One that began before zobench noted them is not looked at.
    """
    known = _known(folder)
    for key in known.keys() & now.keys():
        _compare(folder, settings, key, known[key], now[key])


def check_unchanged(
    folder: RunFolder, settings: RunSettings, parts: tuple[str, ...] = (DATA, MODEL, CODE)
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
        for name, path in _files_now(key, settings).items():
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
    """What meta.json has of them; nothing for a run of before. UserError where that is damaged."""
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
    """What would be read, by name; nothing where the place itself is gone."""
    if key != DATA:
        return _model_files(settings) if key == MODEL else _code_files(settings)
    place = settings.task.get("data_dir")
    if place is not None and not place_of(place).exists():
        return {}
    return _data_files(settings, _task(json.dumps(settings.task, sort_keys=True)))


def _data_files(settings: RunSettings, task: Any) -> dict[str, Path]:
    """By its path from the data folder; without one, and for a single file, by its own name."""
    given = settings.task.get("data_dir")
    place = None if given is None or not place_of(given).is_dir() else place_of(given)
    paths: Sequence[Path] = getattr(task, "input_files", list)()
    return {p.name if place is None else os.path.relpath(p, place): p for p in paths}


def _model_files(settings: RunSettings) -> dict[str, Path]:
    return {path.name: path for path in files_of(settings.model)}


def _code_files(settings: RunSettings) -> dict[str, Path]:
    """The Python files of the user's own that the settings name."""
    found = {}
    for part in _PARTS:
        for key, target in targets_in(getattr(settings, part), part):
            module = sys.modules[located(target, key).__module__]
            if module.__file__ and not f"{module.__name__}.".startswith(_LIBRARIES):
                found[f"{module.__name__}.py"] = Path(module.__file__)
    return found


@lru_cache(maxsize=64)
def _task(node: str) -> Any:
    """The task of some settings: the runs of a sweep often share theirs."""
    return build(json.loads(node), "task")


def _compare(
    folder: RunFolder,
    settings: RunSettings,
    key: str,
    known: Mapping[str, Mapping[str, Any]],
    now: Mapping[str, Mapping[str, Any]],
) -> None:
    part, _, setting = key.partition(".")
    given = getattr(settings, part).get(setting) if setting else None
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


def _stamps(path: Path) -> dict[str, int | bool]:
    """What tells without reading that a file is the one it was, if it is settled by now."""
    try:
        found = path.stat()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    stamps = {"size": found.st_size, "mtime_ns": found.st_mtime_ns, "ctime_ns": found.st_ctime_ns}
    settled = max(found.st_mtime_ns, found.st_ctime_ns) + _SETTLED < time.time_ns()
    return {**stamps, "inode": found.st_ino, "settled": settled}


def _trusted(before: Mapping[str, Any], stamps: Mapping[str, int | bool]) -> bool:
    """Whether the file is as it was: its stamps are, and had stood for a while when it was read."""
    return bool(before.get("settled")) and all(before.get(n) == stamps[n] for n in _STAMPS)


def _digest(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
