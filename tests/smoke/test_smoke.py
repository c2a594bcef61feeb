"""The whole path of every paper's table, from its settings to the table: `make test-smoke`.

The ordinary suite leaves these out; together they take minutes.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.paper_tables import Grid, paper_tables
from zobench.report.runs import suites
from zobench.run.folder import read_json

pytestmark = pytest.mark.smoke

ZOBENCH = str(Path(sys.executable).with_name("zobench"))


@pytest.mark.parametrize("name", paper_tables())
def test_a_table_runs_from_settings_to_table(name: str, tmp_path: Path) -> None:
    """Every run of the small grid is done, and the table shows a number for every cell."""
    environment = {**os.environ, "ZOBENCH_RUNS": str(tmp_path), "OMP_NUM_THREADS": "1"}
    options = [f"experiment={name}", "scale=smoke"]
    answer = subprocess.run(
        [ZOBENCH, *options], env=environment, capture_output=True, text=True, check=False
    )
    assert answer.returncode == 0, answer.stdout[-2000:] + answer.stderr[-4000:]
    [suite] = (tmp_path / "smoke" / name for name in suites(tmp_path / "smoke"))
    results = [read_json(path) for path in suite.glob("*/result.json")]
    assert len(results) == len(Grid.of(*options))
    assert {result["status"] for result in results} == {"done"}
    shown = subprocess.run(
        [ZOBENCH, "table", suite.name, "--runs", str(tmp_path / "smoke")],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert shown.returncode == 0, shown.stderr[-2000:]
    assert "missing" not in shown.stdout and "failed" not in shown.stdout
    for column in {path.name.split("-")[0] for path in suite.glob("*-tiny-*")}:
        assert column in shown.stdout or "tuning" in shown.stdout
