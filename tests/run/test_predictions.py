"""What a run answered, example by example."""

import csv
import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from zobench.paths import ASSETS_DIR
from zobench.run.folder import RunFolder, read_json, write_predictions
from zobench.run.runner import run
from zobench.tasks.problem import Answer

FIXTURES = ASSETS_DIR / "fixtures"


def read(path: Path) -> list[dict[str, str]]:
    with gzip.open(path, "rt", newline="") as file:
        return list(csv.DictReader(file))


def test_the_same_answers_are_the_same_bytes(tmp_path: Path) -> None:
    """Texts with commas, quotes and line ends come back as they were."""
    answers = [Answer('a, "b"\nc', "d", 0.25), Answer("", "0", 1.0)]
    for name in ("one", "two"):
        write_predictions(tmp_path / name, answers)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    rows = read(tmp_path / "one")
    assert [row["row"] for row in rows] == ["0", "1"]
    assert [(r["answer"], r["gold"], float(r["score"])) for r in rows] == [
        tuple(a) for a in answers
    ]


@pytest.mark.parametrize("task", ["sst2", "squad"])
def test_scores_are_those_of_the_result_in_the_order_of_the_data(
    compose: Callable[..., dict[str, Any]], tmp_path: Path, task: str
) -> None:
    """Their mean is the test accuracy, and their order does not depend on the batches."""
    kept = []
    for size in (1, 7):
        small = ("task.sizes.train=4", "task.sizes.dev=2", "task.sizes.test=6", "budget.steps=0")
        settings = compose(
            *(f"task={task}", "task.source.splits={train: train, test: train}", *small),
            *(f"task.data_dir={FIXTURES / task}.jsonl", "task.truncation=left", "logger=none"),
            *(f"evaluation.batch_size={size}", f"runs_root={tmp_path}"),
        )
        folder = RunFolder(tmp_path / f"{task}-{size}")
        meta = {"id": "0" * 8, "name": "n", "suite": "s", "seed": 0, "choices": {}}
        folder.begin(settings, meta)
        result = run(folder)
        rows = read(folder.predictions)
        scores = [float(row["score"]) for row in rows]
        assert len(rows) == read_json(folder.meta)["data"]["test"] > 1
        assert sum(scores) / len(rows) == pytest.approx(result["test"]["accuracy"], abs=1e-6)
        kept.append(rows)
    assert [row["gold"] for row in kept[0]] == [row["gold"] for row in kept[1]]
    assert len({row["gold"] for row in kept[0]}) > 1
