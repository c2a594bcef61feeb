"""The sampler of docs/tutorials/method.md: a short file and a yaml, and no change elsewhere."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.pages import DOCS, blocks, runs

PAGE = DOCS / "tutorials" / "method.md"


@pytest.mark.smoke
def test_a_samplers_own_file_and_yaml_are_all_it_takes(tmp_path: Path) -> None:
    """The page's files and its command: composed by name, swept, each run in a process."""
    [sampler] = blocks(PAGE, "python", "mine/lengths.py")
    [setting] = blocks(PAGE, "yaml", "mine/sampler/lengths.yaml")
    (tmp_path / "mine" / "sampler").mkdir(parents=True)
    (tmp_path / "mine" / "lengths.py").write_text(sampler)
    (tmp_path / "mine" / "sampler" / "lengths.yaml").write_text(setting)
    assert len(sampler.splitlines()) <= 20
    [arguments] = runs(PAGE)
    command = [sys.executable, "-c", "from zobench.cli import main; main()"]
    done = subprocess.run(
        [*command, *arguments],
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
