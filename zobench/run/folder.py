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
from zobench.run.identity import identity
from zobench.tasks.problem import Answer

_ENDED = {"reason", "best_step", "test"}  # some of the keys of result.json
_TARGETS = ("model", "tuning", "task", "optimizer")  # parts of the settings that are built
_SECTIONS = ("train", "budget", "evaluation")
HALVED = "halved"  # key of meta.json: how often the run's batches were halved for want of memory
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

    def fitting(self) -> dict[str, Any]:
        """The settings with batches that fit into the memory there is.

        Raises UserError for a file that no run could have been made of.
        """
        meta = read_json(self.meta) if self.meta.is_file() else {}
        settings = self.settings()
        if not _is_whole(settings):
            raise damaged(self.config)
        return smaller(settings, meta.get(HALVED, 0))


def write_atomically(path: Path, content: str | bytes) -> None:
    """The file holds all of the content or what it held before, whatever happens."""
    data = content.encode() if isinstance(content, str) else content
    write_durably(path, lambda file: file.write(data))


def _is_whole(settings: Mapping[str, Any]) -> bool:
    """Whether what every run reads of its settings is there, and of its type."""
    try:
        json.dumps(settings, default=str)  # a YAML alias can make it hold itself
        parts = [settings[part] for part in (*_TARGETS, *_SECTIONS)]
        size, seed = settings["evaluation"]["batch_size"], settings["seed"]
        targets = all("_target_" in settings[part] for part in _TARGETS)
    except (KeyError, TypeError, ValueError, RecursionError):
        return False
    counts = [size] if settings.get("threads") is None else [size, settings["threads"]]
    numbers = all(type(number) is int and number > 0 for number in counts)
    return numbers and targets and type(seed) is int and all(isinstance(p, dict) for p in parts)


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


def smaller(settings: Mapping[str, Any], times: int) -> dict[str, Any]:
    """The settings with parts of batches halved so many times, down to single examples.

    A step's batch stays what it is, evaluated in parts whose mean is exact; numbers may differ in
    their last bits.
    """
    if not times:
        return dict(settings)
    train, evaluation = settings["train"], settings["evaluation"]
    part = train["micro_batch_size"] or train["batch_size"]
    return {
        **settings,
        "train": {**train, "micro_batch_size": max(1, part >> times)},
        "evaluation": {**evaluation, "batch_size": max(1, evaluation["batch_size"] >> times)},
    }


def can_be_smaller(settings: Mapping[str, Any], times: int) -> bool:
    """Whether halving once more changes anything; what is captured on a GPU takes no parts."""
    if settings["optimizer"].get("graph"):
        return False
    return smaller(settings, times + 1) != smaller(settings, times)


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
