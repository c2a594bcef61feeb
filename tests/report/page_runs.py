"""Run folders for the tests of the report page, written as the runner leaves them."""

import hashlib
import json
import math
from pathlib import Path
from typing import Any

import yaml


def write_run(
    suite: Path,
    seed: int = 0,
    *,
    optimizer: str = "mezo",
    task: str = "reviews",
    lr: float = 1e-3,
    steps: int = 40,
    status: str = "done",
    reason: str | None = None,
    log: str = "",
    extra: dict[str, Any] | None = None,
) -> Path:
    """One run of `steps` steps with a line of training per step and dev every tenth.

    status: done, diverged, failed or unfinished. extra: more entries of config.yaml.
    """
    config: dict[str, Any] = {
        "suite": suite.name,
        "optimizer": {"_target_": optimizer, "lr": lr},
        "task": {"name": task},
        "budget": {"steps": steps, "forwards": None, "seconds": None},
    } | (extra or {})
    setting = hashlib.sha1(json.dumps(config).encode()).hexdigest()[:8]
    identity = hashlib.sha1(f"{setting}{seed}".encode()).hexdigest()[:8]
    folder = suite / f"{task}-tiny-full-{optimizer}-s{seed}-{identity}"
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(config | {"seed": seed}))
    choices = {"optimizer": optimizer, "task": task, "model": "tiny"}
    meta = {"id": identity, "setting": setting, "seed": seed, "choices": choices}
    meta |= {"commit": "abc123", "device": "cpu", "host": "h", "versions": {"torch": "2.13"}}
    (folder / "meta.json").write_text(json.dumps(meta))
    (folder / "stderr.log").write_text(log)
    rows = metrics(steps, lr * (seed + 1), diverged=status == "diverged")
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    if status in ("done", "diverged"):
        result = {
            "status": status,
            "reason": reason,
            "test": {"accuracy": 0.9123456789 - seed / 100, "loss": 0.25},
            "dev": {"accuracy": 0.9, "loss": 0.31},
            "cost": {"forwards": 2 * steps, "tokens": 331 * steps},
            "time": {"step_s": 0.0125, "train_s": 0.0125 * steps, "total_s": 4.0},
            "memory": {"peak_gib": 0.5, "state_gib": 0.0},
        }
        (folder / "result.json").write_text(json.dumps(result))
    if status == "failed":
        failure = {"kind": "crash", "reason": reason, "log": "stderr.log"}
        (folder / "failure.json").write_text(json.dumps(failure))
    return folder


def metrics(steps: int, rate: float, *, diverged: bool = False) -> list[dict[str, Any]]:
    """What a run of `steps` steps logs; the last training loss of a diverged one is null."""
    rows: list[dict[str, Any]] = []
    for step in range(steps + 1):
        costs = {
            "step": step,
            "cost/forwards": 2 * step,
            "cost/tokens": 331 * step,
            "time/train_s": 0.0125367 * step,
            "time/step_s": 0.0125367,
            "memory/peak_gib": 0.5,
        }
        wave = 0.05 * math.sin(1.7 * step) * math.exp(-step / (steps + 1))
        loss = 0.2 + 0.5 * math.exp(-8 * rate * 1e3 * step / (steps + 1) / 8) + wave
        if step:
            rows.append({"train/loss": None if diverged and step == steps else loss} | costs)
        if step % 10 == 0:
            rows.append({"dev/loss": loss + 0.01, "dev/accuracy": 1 - loss} | costs)
    return rows
