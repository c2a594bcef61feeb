"""The files of one run; the folder is the record, everything else is a mirror of it."""

import csv
import gzip
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from zobench.errors import UserError
from zobench.run.durable import write_durably
from zobench.run.fence import fence_of
from zobench.settings import RunSettings, identity
from zobench.tasks.problem import Answer

_ENDED = {"reason", "best_step", "test"}  # some of the keys of result.json
HALVED = "halved"  # key of meta.json: how often the run's batches were halved for want of memory
_NO_SETTINGS = (UserError, AttributeError, KeyError, TypeError, ValueError, RecursionError)
_KEPT = ("base", "inputs", "wandb", HALVED)  # keys of meta.json that later attempts look at


class RunFolder:
    """Paths and atomic writes of `<runs>/<suite>/<name>-<id>/`.

    `result.json` exists only for a finished run, `failure.json` only for a failed one.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = path / "config.yaml"
        self.meta = path / "meta.json"
        self.metrics = path / "metrics.jsonl"
        self.ledger = path / "ledger.bin"
        self.weights = path / "best.safetensors"
        self.model = path / "model"
        self.predictions = path / "predictions.csv.gz"
        self.result = path / "result.json"
        self.failure = path / "failure.json"
        self.attempts = path / "attempts.jsonl"
        self.log = path / "stderr.log"
        self.mirroring = path / ".mirroring"  # while the logger has not heard the run's end

    @property
    def finished(self) -> bool:
        """Whether nothing is left to do."""
        return self.result.is_file() and not self.mirroring.exists()

    def begin(self, settings: Mapping[str, Any], meta: Mapping[str, Any]) -> None:
        """Make the folder; what an unfinished attempt at the same run left in it stays.

        Of the earlier meta.json is kept: the hashes of base weights and files, to be compared with,
        the run's id in W&B, and how often batches were halved for want of memory.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        if self.config.is_file() and identity(self.settings()) != identity(settings):
            self.clear()
        before = read_json(self.meta) if self.meta.is_file() else {}
        kept = {key: before[key] for key in _KEPT if key in before}
        for stale in (self.failure, self.log):
            fence_of(self.path).remove(stale)
        write_atomically(self.config, yaml.safe_dump(dict(settings), sort_keys=False))
        write_json(self.meta, {**kept, **meta})

    def clear(self) -> None:
        """Remove all results, whole or not: the run begins anew."""
        partial = self.weights.with_suffix(".partial")
        files = (self.result, self.metrics, self.ledger, self.weights, self.predictions, partial)
        for stale in (*files, *self.path.glob("checkpoint-*.pt"), self.model, self.path / "wandb"):
            fence_of(self.path).remove(stale)

    def settings(self) -> dict[str, Any]:
        """The resolved settings; floats such as 1e-6 come back as floats."""
        try:
            settings: dict[str, Any] = yaml.safe_load(self.config.read_text())
            return dict(settings)
        except (yaml.YAMLError, RecursionError, TypeError, ValueError) as error:
            raise damaged(self.config) from error

    def ended(self) -> dict[str, Any]:
        """What result.json holds; UserError, naming it, where that is not how a run ends."""
        result = read_json(self.result)
        if result.get("status") not in ("done", "diverged") or not result.keys() >= _ENDED:
            raise damaged(self.result)
        return result

    def fitting(self) -> RunSettings:
        """The settings with batches that fit into the memory there is.

        Raises UserError for a file that no run could have been made of.
        """
        meta = read_json(self.meta) if self.meta.is_file() else {}
        settings = self.settings()
        try:
            json.dumps(settings, default=str)  # a YAML alias can make it hold itself
            return RunSettings.of(settings).halved(meta.get(HALVED, 0))
        except _NO_SETTINGS as error:
            raise damaged(self.config) from error


def write_atomically(path: Path, content: str | bytes) -> None:
    """The file holds all of the content or what it held before, whatever happens."""
    data = content.encode() if isinstance(content, str) else content
    write_durably(path, lambda file: file.write(data))


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    write_atomically(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """What the file holds; UserError, naming it, where that is no JSON object."""
    try:
        return dict(json.loads(path.read_text()))
    except (UnicodeDecodeError, TypeError, ValueError) as error:
        raise damaged(path) from error


def damaged(path: Path) -> UserError:
    """A file of a run that something else than zobench has written to, or a failing disk."""
    return UserError(f"{path}: damaged; repair it, or remove the run's folder to begin anew")


def write_predictions(path: Path, answers: Sequence[Answer]) -> None:
    """Columns row (of the test split), answer, gold, score; the same bytes for the same answers."""
    write_atomically(path, gzip.compress(csv_of(answers).encode(), mtime=0))


def csv_of(answers: Sequence[Answer]) -> str:
    """The file's text."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["row", *Answer._fields])
    table.writerows([n, a.answer, a.gold, f"{a.score:.6g}"] for n, a in enumerate(answers))
    return text.getvalue()
