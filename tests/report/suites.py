"""Suites of run folders, written the way the runner leaves them."""

import gzip
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

SUITE = "quick_100%"


def write_run(
    root: Path,
    seed: int = 0,
    *,
    optimizer: str = "mezo",
    task: str = "synthetic_reviews",
    lr: float = 1e-3,
    test: float | None = 0.9,
    dev: float | None = 0.9,
    dev_loss: float | None = 0.3,
    forwards: int = 400,
    accuracies: Sequence[tuple[int, float]] = (),
    status: str = "done",
    reason: str | None = None,
    preset: dict[str, Any] | None = None,
    prefix: str = "",
    scores: Sequence[float] | None = None,
    gold: Sequence[str] | None = None,
    choices: dict[str, str] | None = None,
    more: dict[str, Any] | None = None,
    published: dict[str, Any] | None = None,
    meta: dict[str, Any] | None = None,
) -> Path:
    """Write one run folder the way the runner leaves it.

    scores: of the test examples, whose mean is then the test accuracy; gold: their right answers.
    more: parts of the config that replace those here.
    """
    if scores is not None:
        test = sum(scores) / len(scores)
    config: dict[str, Any] = {
        "suite": SUITE,
        "optimizer": {"name": optimizer, "lr": lr, "beta": None},
        "task": {"name": task},
        "budget": {"steps": 200},
        "train": {"batch_size": 16},
    }
    config |= more or {}
    setting = hashlib.sha1(json.dumps(config).encode()).hexdigest()[:8]
    identity = hashlib.sha1(f"{setting}{seed}".encode()).hexdigest()[:8]
    folder = root / SUITE / f"{prefix}{task}-{optimizer}-s{seed}-{identity}"
    folder.mkdir(parents=True)
    config |= {"seed": seed} | ({"table": preset} if preset else {})
    config |= {"published": published} if published else {}
    config["optimizer"] = {**config["optimizer"], "seed": seed}  # as a ZO row hands it on
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    chosen = {"optimizer": optimizer, "task": task, "model": "tiny", "estimator": None}
    about = {"id": identity, "setting": setting, "name": "x", "suite": SUITE, "seed": seed}
    about |= {"choices": chosen | (choices or {})}
    (folder / "meta.json").write_text(json.dumps(about | (meta or {})))
    result = {
        "status": status,
        "reason": reason,
        "test": {"accuracy": test, "loss": 0.25},
        "dev": {"accuracy": dev, "loss": dev_loss},
        "cost": {"forwards": forwards, "tokens": 10 * forwards},
        "time": {"step_s": 0.0125, "eval_s": 1.0, "total_s": 4.0},
        "memory": {"peak_gib": 0.5, "state_gib": 0.0},
        "best_step": 150,
    }
    if status in ("done", "diverged"):
        (folder / "result.json").write_text(json.dumps(result))
    curve = [{"cost/forwards": spent, "dev/accuracy": value} for spent, value in accuracies]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in curve))
    if status == "failed":
        failure = {"kind": "oom", "reason": f"{reason}\nand a traceback", "log": "stderr.log"}
        (folder / "failure.json").write_text(json.dumps(failure))
    if scores is not None:
        answers = gold or ["0"] * len(scores)
        rows = [f"{n},a,{g},{s}" for n, (g, s) in enumerate(zip(answers, scores, strict=True))]
        text = "\n".join(["row,answer,gold,score", *rows, ""])
        (folder / "predictions.csv.gz").write_bytes(gzip.compress(text.encode()))
    return folder
