"""The files of one run. The folder is the record; loggers only mirror it."""

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

_ENDED = {"reason", "best_step", "test"}  # required keys of result.json
HALVED = "halved"  # key of meta.json: how often batches were halved after running out of memory
PACK = "pack"  # key of meta.json: what optimizer.pack=auto has chosen
_INVALID = (UserError, AttributeError, KeyError, TypeError, ValueError, RecursionError)
_KEPT = ("base", "inputs", "wandb", HALVED, PACK)  # keys of meta.json that later attempts need


class RunFolder:
    """Paths and atomic writes of `<runs>/<suite>/<name>-<id>/`.

    `result.json` exists only for a finished run, `failure.json` only for a failed one.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = path / "config.yaml"
        self.overrides = path / "overrides.txt"  # the command line that starts the run
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
        self.mirroring = path / ".mirroring"  # until the logger has received the run's end

    @property
    def finished(self) -> bool:
        """Whether the run has a result that the logger has received."""
        return self.result.is_file() and not self.mirroring.exists()

    def begin(self, settings: Mapping[str, Any], meta: Mapping[str, Any]) -> None:
        """Create the folder, or keep what an unfinished attempt at the same run has left.

        meta.json keeps the hashes of base weights and files, the run's id in W&B, how often batches
        were halved, and what `optimizer.pack=auto` has chosen.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        before = read_json(self.meta) if self.meta.is_file() else {}
        if self.config.is_file() and identity(self.settings()) != identity(settings):
            self.clear()
            before.pop(PACK, None)
        kept = {key: before[key] for key in _KEPT if key in before}
        for stale in (self.failure, self.log):
            fence_of(self.path).remove(stale)
        write_atomically(self.config, yaml.safe_dump(dict(settings), sort_keys=False))
        write_json(self.meta, {**kept, **meta})

    def clear(self) -> None:
        """Remove all results, so that the run starts over."""
        partial = self.weights.with_suffix(".partial")
        files = (self.result, self.metrics, self.ledger, self.weights, self.predictions, partial)
        for stale in (*files, *self.path.glob("checkpoint-*.pt"), self.model, self.path / "wandb"):
            fence_of(self.path).remove(stale)

    def settings(self) -> dict[str, Any]:
        """The resolved settings; UserError if the file is damaged."""
        try:
            settings: dict[str, Any] = yaml.safe_load(self.config.read_text())
            return dict(settings)
        except (yaml.YAMLError, RecursionError, TypeError, ValueError) as error:
            raise damaged(self.config) from error

    def ended(self) -> dict[str, Any]:
        """The content of result.json; UserError if it is damaged."""
        result = read_json(self.result)
        if result.get("status") not in ("done", "diverged") or not result.keys() >= _ENDED:
            raise damaged(self.result)
        return result

    def run_settings(self) -> RunSettings:
        """The typed settings, with batches halved and points packed as meta.json says.

        Raises:
            UserError: if a file is damaged.
        """
        meta = read_json(self.meta) if self.meta.is_file() else {}
        settings = self.typed_settings(meta.get(HALVED, 0))
        try:
            return settings.with_pack(meta[PACK]["points"]) if PACK in meta else settings
        except _INVALID as error:
            raise damaged(self.meta) from error

    def typed_settings(self, halved: int = 0) -> RunSettings:
        """The typed settings; UserError if damaged. halved: how often batches are halved."""
        settings = self.settings()
        try:
            json.dumps(settings, default=str)  # fails if a YAML alias makes them recursive
            return RunSettings.of(settings).halved(halved)
        except _INVALID as error:
            raise damaged(self.config) from error


def write_atomically(path: Path, content: str | bytes) -> None:
    """Replace the file's content, completely or not at all."""
    data = content.encode() if isinstance(content, str) else content
    write_durably(path, lambda file: file.write(data))


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    write_atomically(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file; UserError if there is none."""
    try:
        return dict(json.loads(path.read_text()))
    except (UnicodeDecodeError, TypeError, ValueError) as error:
        raise damaged(path) from error


def damaged(path: Path) -> UserError:
    """The error for a file of a run that another program or a failing disk has changed."""
    return UserError(f"{path}: damaged; repair it, or remove the run's folder to start over")


def write_predictions(path: Path, answers: Sequence[Answer]) -> None:
    """Write predictions.csv.gz; equal answers give equal bytes."""
    write_atomically(path, gzip.compress(csv_of(answers).encode(), mtime=0))


def csv_of(answers: Sequence[Answer]) -> str:
    """CSV with the columns row (of the test split), answer, gold, score."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["row", *Answer._fields])
    table.writerows([n, a.answer, a.gold, f"{a.score:.6g}"] for n, a in enumerate(answers))
    return text.getvalue()
