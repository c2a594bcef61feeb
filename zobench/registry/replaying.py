"""Replays a run, or trains it again, where its base model and its data are at hand."""

import json
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import yaml

from zobench.errors import UserError
from zobench.models.files import files_of
from zobench.paths import place_of
from zobench.run.best_weights import step_in
from zobench.run.folder import RunFolder, read_json, write_atomically, write_json
from zobench.run.inputs import CODE, ROWS
from zobench.run.loggers.none import NoLogger
from zobench.run.metrics_log import read_rows
from zobench.run.replay import settings_in
from zobench.run.runner import run
from zobench.run.verify import Verification
from zobench.run.zero_shot import ZeroShot
from zobench.settings import RunSettings
from zobench.targets import FOLDERS

NOT = "not replayed"  # how phrases of runs that were not replayed begin
_MEASURED = ("time/", "memory/", "diagnose/seconds")  # what differs from run to run


def replay(folder: RunFolder, tolerance: float = 0.0) -> tuple[str, list[str]]:
    """Rebuild a run's weights and evaluate them, where that is possible.

    Args:
        folder: of a finished run; meta.json gets new stamps of files that were read again.
        tolerance: relative, for scores; 0 is the same bits.

    Returns:
        How the run was verified, as a phrase for entry.json; and a line per difference.
    """
    if why := missing(folder):
        return f"{NOT}: {why}", []
    try:
        verification = Verification(folder, tolerance)
    except UserError as error:
        if ROWS in read_json(folder.meta).get("inputs", {}):  # the hub may be out of reach
            return f"{NOT}: {error}", []
        raise
    optimizer, why_not = verification.replayed.optimizer, verification.replayed.why_not
    stored = step_in(folder.weights) == verification.result["best_step"]
    if why_not is not None and type(optimizer) is not ZeroShot and not stored:
        return f"{NOT}: {why_not}", []
    verification.run()
    done = "replayed" if why_not is None else "evaluated again"
    found = [*verification.found, *_unlike_meta(verification)]
    return f"{done} {_precision(tolerance)}", found


def _unlike_meta(verification: Verification) -> Iterator[str]:
    """A line for each count in meta.json that is not that of the rebuilt model and task."""
    meta, model = read_json(verification.folder.meta), verification.replayed.model
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    now = {"data": dict(verification.problem.sizes), "parameters": trained}
    for key, value in now.items():
        if meta[key] != value:
            yield f"{key}: {meta[key]} in meta.json, {value} now"


def missing(folder: RunFolder) -> str | None:
    """What a replay needs and this machine lacks, as a clause; None if nothing is missing."""
    meta = read_json(folder.meta)
    if (code := meta.get("inputs", {}).get(CODE)) and not os.environ.get(FOLDERS):
        return f"it uses Python files of its author ({', '.join(code)}); set {FOLDERS}"
    settings, device = settings_in(folder), meta.get("device")
    if settings.model.get("trust_remote_code"):
        return "model.trust_remote_code would run Python files of the model"
    if device != "cpu" and device not in _devices():
        return f"it ran on {device}, which is not here"
    if not _has_model(settings):
        return "the base model was not at hand"
    data_dir = settings.task.get("data_dir")
    if isinstance(data_dir, str) and not place_of(data_dir).exists():
        return f"the data were not at hand ({data_dir})"
    return None


def train_again(folder: RunFolder, tolerance: float = 0.0) -> tuple[str, list[str]]:
    """Train a run again from its settings alone; takes as long as the run did.

    This also finds a forged ledger, whose losses a replay takes as they are, and verifies runs that
    a ledger cannot replay.

    Args:
        folder: of a finished run; it is not changed.
        tolerance: relative, for losses and scores; 0 is the same bits, also of the ledger.

    Returns:
        How the run was verified, and a line per difference.
    """
    if why := missing(folder):
        return f"not trained again: {why}", []
    if settings_in(folder).budget.seconds is not None:
        return "not trained again: its budget is a time (budget.seconds)", []
    with TemporaryDirectory() as place:
        again = copied(folder, Path(place), ("config.yaml", "meta.json"))
        result = run(again)
        found = _unlike("result.json", _numbers(folder.ended()), _numbers(result), tolerance)
        then, now = (_rows(one) for one in (folder, again))
        found += _unlike("metrics.jsonl", then, now, tolerance)
        if tolerance == 0.0:
            for name in ("ledger.bin", "predictions.csv.gz"):
                one, other = (f.path / name for f in (folder, again))
                if one.is_file() != other.is_file() or (
                    one.is_file() and one.read_bytes() != other.read_bytes()
                ):
                    found.append(f"{name}: other bytes than the new run's")
    return f"trained again {_precision(tolerance)}", found


def copied(folder: RunFolder, place: Path, names: tuple[str, ...] = ()) -> RunFolder:
    """A copy of a run's files, all or those named, that may be written to and runs on its device.

    Args:
        folder: of the run.
        place: where the copy is made, in a folder of the run's name.
        names: of the files; none stands for all.
    """
    copy = RunFolder(place / folder.path.name)
    copy.path.mkdir()
    for file in folder.path.iterdir():
        if file.is_file() and file.name in (names or (file.name,)):
            (copy.path / file.name).write_bytes(file.read_bytes())
    logger = {"_target_": f"{NoLogger.__module__}.{NoLogger.__name__}"}
    settings = {**folder.settings(), "logger": logger}
    if read_json(folder.meta).get("device") == "cpu":
        settings["device"] = "cpu"
    write_atomically(copy.config, yaml.safe_dump(settings, sort_keys=False))
    if names:  # for a new run, which hashes model and data itself
        meta = read_json(copy.meta)
        write_json(copy.meta, {k: v for k, v in meta.items() if k not in ("base", "inputs")})
    return copy


def _devices() -> list[str]:
    """The names of the GPUs of this machine."""
    return [torch.cuda.get_device_name(n) for n in range(torch.cuda.device_count())]


def _has_model(settings: RunSettings) -> bool:
    """Whether the files of the base model are here, those of the hub in its cache."""
    node = settings.model
    if not isinstance(node.get("path"), str):
        return True  # a model without files, such as a quadratic's
    if node.get("weights") == "random" and node.get("architecture"):
        return True
    try:
        return bool(files_of(node))
    except UserError:  # of a package that is not installed
        return False


def _precision(tolerance: float) -> str:
    return f"within a tolerance of {tolerance:g}" if tolerance else "to the same bits"


def _numbers(result: Mapping[str, Any]) -> dict[str, Any]:
    """The leaves of a result by their keys, without times and memory."""
    text = json.loads(json.dumps(result))  # NaN and tuples as the file has them
    kept = {k: v for k, v in text.items() if k not in ("time", "memory")}
    leaves: dict[str, Any] = {}
    for key, value in kept.items():
        below = value if isinstance(value, dict) else None
        leaves |= {key: value} if below is None else {f"{key}/{k}": v for k, v in below.items()}
    return leaves


def _rows(folder: RunFolder) -> dict[str, Any]:
    """The numbers of metrics.jsonl by step and name, without times and memory."""
    return {
        f"step {row['step']}, {key}": value
        for row in read_rows(folder.metrics)[0]
        for key, value in row.items()
        if not key.startswith(_MEASURED)
    }


def _unlike(
    where: str, then: Mapping[str, Any], now: Mapping[str, Any], tolerance: float
) -> list[str]:
    """A line for the first number in which a new run differs, and how many more there are."""
    wrong = [
        name
        for name in [*then, *sorted(now.keys() - then.keys())]
        if not _close(then.get(name), now.get(name), tolerance)
    ]
    if not wrong:
        return []
    name, more = wrong[0], len(wrong) - 1
    tail = f"; {more} more numbers differ" if more else ""
    return [f"{name}: {then.get(name)} in {where}, {now.get(name)} in a new run{tail}"]


def _close(then: Any, now: Any, tolerance: float) -> bool:
    if isinstance(then, float) and isinstance(now, float):
        return then == now or math.isclose(then, now, rel_tol=tolerance)
    return bool(then == now)
