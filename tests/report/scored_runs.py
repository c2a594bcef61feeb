"""Run folders for the tests of scores, with curves of dev, and the scores of such folders."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from zobench.report.runs import read_suite
from zobench.report.scoring import Scores, rules_of, scored
from zobench.report.workloads import read_suites

TASKS = ("sst2", "rte")
Curve = Sequence[tuple[int, float]]  # forwards and dev/loss of each evaluation


def reaches(loss: float, *, at: int, budget: int = 400) -> Curve:
    """A curve from 1.0 that has `loss` from `at` forwards on, evaluated every 100."""
    return [(n, loss if n >= at else 1.0) for n in range(0, budget + 1, 100)]


def write_run(
    root: Path,
    row: str,
    curve: Curve,
    *,
    suite: str = "s",
    task: str = "sst2",
    model: str = "tiny",
    seed: int = 0,
    lr: float = 1e-3,
    status: str = "done",
    test: float | None = 0.9,
    pace: float = 0.1,
    table: dict[str, Any] | None = None,
) -> Path:
    """One run of a row. pace: seconds a forward; dev/accuracy is 1 - dev/loss."""
    setting = f"{row}-{task}-{model}-{lr:g}"
    folder = root / suite / f"{setting}-s{seed}"
    folder.mkdir(parents=True)
    config = {"optimizer": {"lr": lr}, "budget": {"steps": 200}, "seed": seed, "suite": suite}
    (folder / "config.yaml").write_text(yaml.safe_dump(config | {"table": table or {}}))
    choices = {"optimizer": row, "task": task, "model": model, "tuning": "full", "logger": "none"}
    meta = {"id": f"{setting}-{seed}", "setting": setting, "seed": seed, "choices": choices}
    (folder / "meta.json").write_text(json.dumps(meta))
    rows = [
        {
            "step": forwards // 2,
            "dev/loss": loss,
            "dev/accuracy": 1 - loss,
            "cost/forwards": forwards,
            "time/train_s": pace * forwards,
        }
        for forwards, loss in curve
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in rows))
    best = min(loss for _, loss in curve)
    spent = curve[-1][0]
    result = {
        "status": status,
        "reason": "the loss is not finite" if status == "diverged" else None,
        "test": {"accuracy": test, "loss": None if test is None else 1 - test},
        "dev": {"accuracy": 1 - best, "loss": best},
        "cost": {"forwards": spent},
        "time": {"train_s": pace * spent, "step_s": 2 * pace, "total_s": pace * spent + 1},
        "memory": {"peak_gib": 0.5},
    }
    if status in ("done", "diverged"):
        (folder / "result.json").write_text(json.dumps(result))
    return folder


def scores_of(root: Path, *suites: str, search: str | None = None, **options: Any) -> Scores:
    """The scores of suites, `s` if none is named; options as in `rules_of`."""
    suite = read_suites(root, suites or ("s",))
    found = read_suite(root, search) if search else None
    return scored(suite, rules_of(suite, **options), found)


def costs_of(scores: Scores, row: str) -> list[float]:
    """The row's cost in each workload."""
    return [workload.cost(row) for workload in scores.workloads]
