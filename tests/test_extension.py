"""A user's own sampler: twenty lines and a yaml in a folder of theirs, and no change elsewhere."""

import json
import os
import subprocess
import sys
from pathlib import Path

SAMPLER = '''"""Every tensor is perturbed by the same length, whatever its size."""

import math

from zobench.zo.directions import Dense
from zobench.zo.samplers.base import Sampler


class EqualLengths(Sampler):
    """z ~ N(0, I) per tensor, times length / sqrt(elements)."""

    def __init__(self, *, length: float = 1.0) -> None:
        self.length = length

    def direction(self, slot, key):
        return Dense.normal(key, slot.id, self.length / math.sqrt(slot.numel))
'''


def test_a_samplers_own_file_and_yaml_are_all_it_takes(tmp_path: Path) -> None:
    """Composed by name from `--config-dir`, swept, trained with in processes of their own."""
    mine = tmp_path / "mine"
    (mine / "sampler").mkdir(parents=True)
    (mine / "lengths.py").write_text(SAMPLER)
    (mine / "sampler" / "lengths.yaml").write_text("_target_: lengths.EqualLengths\nlength: 1.0\n")
    assert len(SAMPLER.splitlines()) <= 20
    overrides = ["task=quadratic_columns", "sampler=lengths", "logger=none", "suite=mine"]
    overrides += ["budget.steps=60", "optimizer.lr=0.1", "sampler.length=1.0,3.0"]
    command = [sys.executable, "-c", "from zobench.cli import main; main()"]
    done = subprocess.run(
        [*command, "--config-dir", str(mine), "-m", *overrides],
        cwd=tmp_path,
        env=os.environ | {"ZOBENCH_RUNS": str(tmp_path / "runs"), "PYTHONWARNINGS": "default"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    results = sorted((tmp_path / "runs" / "mine").glob("*/result.json"))
    assert len(results) == 2
    for path in results:
        result = json.loads(path.read_text())
        rows = [json.loads(x) for x in path.with_name("metrics.jsonl").read_text().splitlines()]
        assert result["status"] == "done"
        assert result["final"]["loss"] < rows[0]["dev/loss"]
        assert (path.parent / "ledger.bin").is_file()
