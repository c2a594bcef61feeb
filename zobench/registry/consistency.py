"""Whether the files of an entry agree with each other; nothing is loaded or computed again.

A change of one file shows up here even if its hash was renewed. Changes of several files that agree
with each other are left to the replay.
"""

import csv
import gzip
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

from zobench.run.best_weights import worth
from zobench.run.folder import RunFolder, read_json
from zobench.run.metrics_log import Row, read_rows
from zobench.settings import identity
from zobench.zo.ledger import recover
from zobench.zo.optimizer import ZOOptimizer

_ZO = f"{ZOOptimizer.__module__}.{ZOOptimizer.__name__}"
_ROUNDED = 1e-4  # scores of predictions.csv.gz have six digits


def inconsistencies(path: Path) -> list[str]:
    """A line for each number or name that two files of the entry, or its folder, disagree on.

    Args:
        path: the folder `SUITE/RUN_NAME`.

    Raises:
        UserError: a file is damaged.
    """
    folder = RunFolder(path)
    plain, meta, result = folder.settings(), read_json(folder.meta), folder.ended()
    rows = read_rows(folder.metrics)[0]
    return [
        *_names(path, plain, meta),
        *_status(plain, result),
        *_ledger(folder, plain, result, rows),
        *_metrics(plain, result, rows),
        *_predictions(folder, meta, result),
    ]


def _same(name: str, then: Any, now: Any, where: str, source: str) -> Iterator[str]:
    """A line unless the two values are equal."""
    if then != now:
        yield f"{name}: {then} in {where}, {now} {source}"


def _names(path: Path, plain: Mapping[str, Any], meta: Mapping[str, Any]) -> Iterator[str]:
    own, source = identity(plain), "by config.yaml"
    yield from _same("id", meta["id"], own, "meta.json", source)
    yield from _same("seed", meta["seed"], plain["seed"], "meta.json", source)
    yield from _same("suite", meta["suite"], plain["suite"], "meta.json", source)
    if meta["seed"] == 0:
        yield from _same("setting", meta["setting"], own, "meta.json", source)
    if not path.name.endswith(f"-s{plain['seed']}-{own}"):
        yield f"folder: {path.name} does not end in -s{plain['seed']}-{own}, as config.yaml says"
    place = f"{path.parent.name}/{path.name}"
    yield from _same("folder", place, f"{meta['suite']}/{meta['name']}", "results", "in meta.json")


def _status(plain: Mapping[str, Any], result: Mapping[str, Any]) -> Iterator[str]:
    """A run has diverged if there is a reason; then it has not ended with a finite loss."""
    status, steps = result["status"], plain["budget"].get("steps")
    own = "diverged" if result["reason"] else "done"
    yield from _same("status", status, own, "result.json", "by its reason")
    ended = result["steps"] == steps and (result["final"] or {}).get("loss") is not None
    if status == "diverged" and ended and plain["train"].get("diverged_above") is None:
        yield f"status: diverged in result.json, after all {steps} steps and with a finite loss"


def _ledger(
    folder: RunFolder, plain: Mapping[str, Any], result: Mapping[str, Any], rows: Sequence[Row]
) -> Iterator[str]:
    """Steps, seed and forwards; those of each row of metrics, too."""
    budget = plain["budget"].get("steps")
    if budget is not None and result["steps"] > budget:
        yield f"steps: {result['steps']} in result.json, and the budget is {budget}"
    if plain["optimizer"]["_target_"] != _ZO:
        return
    if not folder.ledger.is_file():
        yield f"{folder.ledger.name}: missing; a zeroth-order run writes it"
        return
    ledger, source = recover(folder.ledger), "in ledger.bin"
    if ledger.damage:
        yield ledger.damage.replace(str(folder.ledger), folder.ledger.name)
    yield from _same("seed", plain["seed"] % 2**64, ledger.seed, "config.yaml", source)
    spent = [0, *accumulate(len(record.losses) for record in ledger.records)]
    yield from _same("steps", result["steps"], len(ledger.records), "result.json", source)
    forwards = result["cost"]["forwards"]
    lost = result["status"] == "diverged" and forwards > spent[-1]  # a step that is no record
    if not lost:
        yield from _same("cost/forwards", forwards, spent[-1], "result.json", source)
    for row in rows:
        step, tested = row["step"], any(key.startswith("test/") for key in row)
        if "cost/forwards" in row and step < len(spent) and not (lost and tested):
            name = f"cost/forwards after {step} steps"
            yield from _same(name, row["cost/forwards"], spent[step], "metrics.jsonl", source)


def _metrics(
    plain: Mapping[str, Any], result: Mapping[str, Any], rows: Sequence[Row]
) -> Iterator[str]:
    """What the result takes from metrics.jsonl: the best and the last dev scores, test, costs."""
    where, source = "result.json", "by metrics.jsonl"
    dev = [(row["step"], _part(row, "dev")) for row in rows if "dev/loss" in row]
    finite = [(step, scores) for step, scores in dev if scores["loss"] is not None]
    select = plain["train"].get("select")
    if select == "last":
        finite = finite[-1:]
    step, scores = max(finite, key=lambda one: worth(one[1], select), default=(0, {}))
    yield from _same("best_step", result["best_step"], step, where, source)
    yield from _same("dev", result["dev"], scores, where, source)
    yield from _same("final", result["final"], dev[-1][1] if dev else {}, where, source)
    losses = [row["train/loss"] for row in rows if "train/loss" in row]
    last = losses[-1] if losses else None
    yield from _same("train/loss", result["train"]["loss"], last, where, source)
    tested = [row for row in rows if any(key.startswith("test/") for key in row)]
    if len(tested) != 1:
        yield f"test: {len(tested)} rows in metrics.jsonl; a run is tested once"
        return
    yield from _same("steps", result["steps"], tested[0]["step"], where, source)
    yield from _same("test", result["test"], _part(tested[0], "test"), where, source)
    costs = {f"cost/{name}": value for name, value in result["cost"].items()}
    for name, value in {**costs, "time/train_s": result["time"]["train_s"]}.items():
        yield from _same(name, value, tested[0].get(name), where, source)


def _predictions(
    folder: RunFolder, meta: Mapping[str, Any], result: Mapping[str, Any]
) -> Iterator[str]:
    """The number of rows, and the mean of their scores, which is the accuracy of the test."""
    if not folder.predictions.is_file():
        return
    name = folder.predictions.name
    text = gzip.decompress(folder.predictions.read_bytes()).decode()
    scores = [float(row["score"]) for row in csv.DictReader(io.StringIO(text))]
    yield from _same("test rows", meta["data"]["test"], len(scores), "meta.json", f"in {name}")
    accuracy, mean = result["test"].get("accuracy"), sum(scores) / max(1, len(scores))
    if accuracy is not None and not math.isclose(accuracy, mean, abs_tol=_ROUNDED):
        yield f"test/accuracy: {accuracy} in result.json, {mean:.6g} by {name}"


def _part(row: Row, part: str) -> dict[str, Any]:
    """The scores of a split in a row of metrics."""
    prefix = f"{part}/"
    return {k.removeprefix(prefix): v for k, v in row.items() if k.startswith(prefix)}
