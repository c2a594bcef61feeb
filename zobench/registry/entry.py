"""An entry of the registry: what is needed to check one scored run, without weights and logs.

`results/SUITE/RUN_NAME/` has the files of the run folder that hold settings, result and evidence.
They are cleaned of what names a machine. `entry.json` has their hashes, and who submitted what.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from zobench.errors import UserError
from zobench.names import plain_name
from zobench.nested import nodes
from zobench.run.folder import HALVED, PACK, RunFolder, read_json
from zobench.run.loggers.none import NoLogger

ENTRY = "entry.json"
NEEDED = ("config.yaml", "meta.json", "result.json", "metrics.jsonl")
OPTIONAL = ("ledger.bin", "predictions.csv.gz", "attempts.jsonl")
MOST_BYTES = 2_000_000  # of a file
_LONGEST = 100  # characters of a name
_META = (
    *("id", "setting", "name", "suite", "seed", "choices", "commit", "versions", "data"),
    *("parameters", "device", "ranks", "base", "inputs", "notes", HALVED, PACK),
)
_ATTEMPT = ("time", "event", "kind")
# a text that is an absolute path; within any text one of two or more parts, a home, a drive
_PLACE = re.compile(
    r"""^/[\w.@+-]+$|(?:^|[\s'"=:,(\[])(?:/[\w.@+-]+/[\w.@+/-]+|~\w*/|[A-Za-z]:\\)"""
)


@dataclass(frozen=True)
class Tuning:
    """What choosing the settings of a run has cost, over all candidates.

    Args:
        forwards: of all trials together.
        trials: the number of runs among which dev chose; 0 where nothing was tried.
        source: the suite whose runs were counted, or "stated".
    """

    forwards: int
    trials: int
    source: str = "stated"

    def __post_init__(self) -> None:
        for name, value in (("forwards", self.forwards), ("trials", self.trials)):
            if type(value) is not int or value < 0:
                raise UserError(f"tuning {name}={value}: must be a whole number from 0 up")


@dataclass(frozen=True)
class Entry:
    """The content of entry.json.

    Args:
        who: the name of the person or group that submitted the run.
        verified: a phrase, as `replay` in `zobench.registry.verify` returns it.
        tuning: the budget that choosing the settings took.
        date: of the submission, as 2026-12-01.
        commit: of zobench, with which the run was made; None outside a checkout.
        files: SHA-256 of each file, by name.
    """

    who: str
    verified: str
    tuning: Tuning
    date: str
    commit: str | None
    files: Mapping[str, str]

    @classmethod
    def read(cls, path: Path) -> "Entry":
        """The entry of a folder; UserError if entry.json is missing or damaged."""
        if not (path / ENTRY).is_file():
            raise UserError(f"{path / ENTRY}: missing; `zobench submit` writes it")
        content = read_json(path / ENTRY)
        try:
            tuning = Tuning(**content.pop("tuning"))
            entry = cls(**content, tuning=tuning)
            texts = (entry.verified, entry.date, *entry.files, *entry.files.values())
            whole = all(isinstance(text, str) for text in texts)
        except (AttributeError, KeyError, TypeError):
            whole = False
        if not whole:
            raise UserError(f"{path / ENTRY}: damaged; submit the run again")
        checked_name(entry.who)
        return entry

    def text(self) -> str:
        """The content of entry.json."""
        return json.dumps(asdict(self), indent=2) + "\n"


def checked_name(who: Any) -> str:
    """The name of who submits, if it is one line of text; else UserError."""
    if not isinstance(who, str) or not who.strip() or not who.isprintable() or len(who) > _LONGEST:
        raise UserError(f"--who {who!r}: give a name of one line, at most {_LONGEST} characters")
    return who.strip()


def digests(files: Mapping[str, bytes]) -> dict[str, str]:
    """SHA-256 of each content, by name."""
    return {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}


def packed(folder: RunFolder) -> dict[str, bytes]:
    """The files of an entry, by name, without host, process ids, logger and time stamps of files.

    Raises:
        UserError: a file is missing or too large, or a setting that is part of the run's id names
            a path of this machine.
    """
    files: dict[str, bytes] = {}
    for name in (*NEEDED, *OPTIONAL):
        path = folder.path / name
        if path.is_file():
            files[name] = path.read_bytes()
        elif name in NEEDED:
            raise UserError(f"{path}: missing; an entry needs it")
    config, meta = _config(folder), _meta(folder)
    for name, content in (("config.yaml", config), ("meta.json", meta)):
        _refuse_places(name, content)
    _refuse_places("result.json", read_json(folder.result))
    files["config.yaml"] = yaml.safe_dump(config, sort_keys=False).encode()
    files["meta.json"] = (json.dumps(meta, indent=2) + "\n").encode()
    if "attempts.jsonl" in files:
        files["attempts.jsonl"] = _attempts(files["attempts.jsonl"])
    for name, data in files.items():
        if len(data) > MOST_BYTES:
            raise UserError(
                f"{folder.path / name}: {len(data):,} bytes; a file of an entry has at most"
                f" {MOST_BYTES:,}"
            )
    return files


def damage(path: Path) -> list[str]:
    """A line for each file that is missing, unknown or too large, or unlike entry.json."""
    if not (path / ENTRY).is_file():
        return [f"{ENTRY}: missing; `zobench submit` writes it"]
    entry, found = Entry.read(path), []
    expected = entry.files
    for file in sorted(path.iterdir()):
        if file.name not in (ENTRY, *NEEDED, *OPTIONAL) or file.is_symlink() or file.is_dir():
            found.append(f"{file.name}: is not a file of an entry")
        elif file.stat().st_size > MOST_BYTES:
            found.append(f"{file.name}: has more than {MOST_BYTES:,} bytes")
    for name in sorted({*NEEDED, *expected} | {n for n in OPTIONAL if (path / n).is_file()}):
        if not (path / name).is_file():
            found.append(f"{name}: missing")
        elif name not in expected:
            found.append(f"{name}: has no hash in {ENTRY}")
        elif hashlib.sha256((path / name).read_bytes()).hexdigest() != expected[name]:
            found.append(f"{name}: is not the file that was submitted (SHA-256 in {ENTRY})")
    meta = path / "meta.json"
    if meta.is_file() and (commit := read_json(meta).get("commit")) != entry.commit:
        found.append(f"commit: {entry.commit} in {ENTRY}, {commit} in {meta.name}")
    return found


def place_in(results: Path, meta: Mapping[str, Any]) -> Path:
    """The folder of a run's entry; UserError where suite or name are no folder names."""
    for key in ("suite", "name"):
        plain_name(key, str(meta.get(key))[:_LONGEST])
        if Path(str(meta[key])).name != meta[key]:
            raise UserError(f"meta.json: {key} {meta[key]} is not the name of a folder")
    return results / meta["suite"] / meta["name"]


def _config(folder: RunFolder) -> dict[str, Any]:
    """The settings; those that are not part of the run's id and name this machine are reset."""
    logger = {"_target_": f"{NoLogger.__module__}.{NoLogger.__name__}"}
    return {**folder.settings(), "runs_root": "runs", "logger": logger}


def _meta(folder: RunFolder) -> dict[str, Any]:
    meta = {key: value for key, value in read_json(folder.meta).items() if key in _META}
    meta["choices"] = {k: v for k, v in meta["choices"].items() if k != "logger"}
    if "inputs" in meta:
        meta["inputs"] = {
            key: {name: {"sha256": entry["sha256"]} for name, entry in files.items()}
            for key, files in meta["inputs"].items()
        }
    return meta


def _attempts(data: bytes) -> bytes:
    rows = [json.loads(line) for line in data.decode().splitlines()]
    kept = [{key: row[key] for key in _ATTEMPT if key in row} for row in rows]
    return "".join(json.dumps(row) + "\n" for row in kept).encode()


def _refuse_places(name: str, content: Mapping[str, Any]) -> None:
    """Raise UserError for a text with an absolute path; the example row is data, not a path."""
    for part, value in content.items():
        for key, text in nodes(value, part):
            if key.startswith("task.example"):
                continue
            for said in (key, text):
                if isinstance(said, str) and _PLACE.search(said):
                    raise UserError(
                        f"{name}: {key}={text}: names a path of this machine; run it again with a"
                        " relative path, as this setting is part of the run's id"
                    )
