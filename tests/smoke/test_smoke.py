"""The whole path of every paper's table, from its settings to the table: `make test-smoke`.

The ordinary suite leaves these out; together they take minutes.
"""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.paper_tables import Grid, commands, paper_tables
from zobench.build import build
from zobench.cli import run_command
from zobench.report.runs import suites
from zobench.run.folder import RunFolder, read_json

pytestmark = pytest.mark.smoke

MOST_RUNS = 48  # of a table
ZOBENCH = str(Path(sys.executable).with_name("zobench"))


@pytest.mark.parametrize("name", paper_tables())
def test_a_table_runs_from_settings_to_table(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each run of a grid that is small and offline is done; the table has a number per cell."""
    environment = {**os.environ, "ZOBENCH_RUNS": str(tmp_path), "OMP_NUM_THREADS": "1"}
    options = [f"experiment={name}", "scale=smoke"]
    answer = subprocess.run(
        [ZOBENCH, *options], env=environment, capture_output=True, text=True, check=False
    )
    assert answer.returncode == 0, answer.stdout[-2000:] + answer.stderr[-4000:]
    [suite] = (tmp_path / "smoke" / name for name in suites(tmp_path / "smoke"))
    results = [read_json(path) for path in suite.glob("*/result.json")]
    grids = [Grid.of(*words) for words in commands(name, "scale=smoke")]
    assert len(results) == sum(map(len, grids)) <= MOST_RUNS
    for path in suite.glob("*/result.json"):
        settings = RunFolder(path.parent).settings()
        assert settings["budget"]["steps"] <= 4 and settings["model"]["path"] == "zobench:tiny"
        assert settings["task"]["data_dir"].startswith("zobench:fixtures/")
    assert {result["status"] for result in results} == {"done"}
    assert run_command(["table", suite.name, "--runs", str(tmp_path / "smoke")]) == 0
    shown = capsys.readouterr().out
    assert "missing" not in shown and "failed" not in shown
    for column in {path.name.split("-")[0] for path in suite.glob("*-tiny-*")}:
        assert column in shown or "tuning" in shown


def test_every_task_of_a_table_has_fixture_rows_to_train_and_to_test_on(
    compose: Callable[..., dict[str, Any]],
) -> None:
    """A table that gets another task needs its corpus in conf/data/fixtures.yaml."""
    grids = [Grid.of(*words) for name in paper_tables() for words in commands(name)]
    tasks = {task for grid in grids for task in grid.values("task")}
    assert len(tasks) > 20
    for task in sorted(tasks):
        node = compose("scale=smoke", f"task={task}")["task"]
        rows = build(node["source"]).rows(node["data_dir"])
        assert len(rows["train"]) > node["sizes"]["dev"] and len(rows["test"]) >= 2
