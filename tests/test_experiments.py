"""Every overlay of conf/experiment: its grid fits its rows, and its first job runs."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.paper_tables import Grid, commands, paper_tables, texts
from zobench.build import check
from zobench.paths import conf_dir
from zobench.run.folder import RunFolder, read_json
from zobench.run.runner import run
from zobench.settings import RunSettings

Compose = Callable[..., dict[str, Any]]
EXPERIMENTS = sorted({p.stem for p in (conf_dir() / "experiment").iterdir()} - {*paper_tables()})


@pytest.fixture
def libsvm_folder(tmp_path: Path) -> Path:
    """Files with a9a's names and width, twelve rows each."""
    lines = [f"{1 if n % 3 else -1:+d} {n + 1}:1 {5 * n + 20}:1" for n in range(12)]
    for name in ("a9a", "a9a.t"):
        (tmp_path / name).write_text("\n".join(lines))
    return tmp_path


every_grid = pytest.mark.parametrize(
    "grid", [words for name in EXPERIMENTS for words in commands(name)], ids=lambda words: words[-1]
)


@every_grid
def test_the_jobs_of_every_experiment_bind(compose: Compose, grid: tuple[str, ...]) -> None:
    """First and last of the sweep."""
    for job in Grid.of(*grid).corners:
        settings = compose(*grid, *job)
        check(settings)
        RunSettings.of(settings)


@pytest.mark.smoke
@every_grid
def test_the_first_job_of_every_experiment_runs(
    compose: Compose, grid: tuple[str, ...], tmp_path: Path, libsvm_folder: Path
) -> None:
    """In three steps, to the table's metric."""
    name = grid[0].removeprefix("experiment=")
    job = Grid.of(*grid).corners[0]
    settings = compose(*grid, *job)
    # tables of memory and time build models of many gigabytes
    if "model: {weights: random" in texts()[name]:
        job = [word for word in job if not word.startswith("model=")]
        settings = compose(*grid, *job, "model=tiny")
    if "/scale/lab" in texts()[name]:  # its model and data are not the repository's
        settings = compose(*grid, *job, "model=tiny", "data=fixtures")
        settings["task"]["demonstrations"] = min(2, settings["task"]["demonstrations"])
    settings["logger"] = {"_target_": "zobench.run.loggers.none.NoLogger"}
    if "data_dir" in settings["task"] and "files" in settings["task"]:
        settings["task"] |= {"data_dir": str(libsvm_folder)}
        settings["task"]["sizes"] = {"train": 12, "dev": 0, "test": 12}
    elif "sizes" in settings["task"]:
        settings["task"]["sizes"] = {"train": 20, "dev": 8, "test": 8}
        if "sizes" in settings["task"].get("source", {}):
            settings["task"]["source"]["sizes"] = settings["task"]["sizes"]
    settings["budget"] |= {"steps": 3}
    settings["train"] |= {"eval_every": 2, "log_every": 1}
    folder = RunFolder(tmp_path / "run")
    choices = {"task": "t", "model": "m", "tuning": "full", "optimizer": "o"}
    meta = {"id": "0" * 8, "name": name, "suite": "s", "seed": 0, "choices": choices}
    folder.begin(settings, meta)
    result = run(folder)
    assert result["status"] == "done"
    part, key = settings["table"]["metric"].split("/")
    assert key in read_json(folder.result)[part]
