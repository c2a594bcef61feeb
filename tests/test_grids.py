"""A table of several grids is one command, which typed options restrict to those that have them."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.paper_tables import Grid, commands
from zobench.cells import rows
from zobench.grids import command_lines
from zobench.launch import launch_log
from zobench.paths import conf_dir
from zobench.run.folder import read_json

Command = Callable[..., tuple[int, str, str]]
TABLE = "experiment=mezo_opt13b"


def grids_of(*words: str) -> dict[str, set[str]]:
    """Grid -> what its command line says besides grid and table."""
    found = {}
    for line in command_lines([TABLE, *words]):
        grid = [word.partition("-")[2] for word in line if word.startswith("grid=")]
        rest = {word for word in line if not word.startswith(("grid=", "hydra.", TABLE))}
        found[grid[0] if grid else "own"] = rest
    return found


def test_every_row_of_the_group_is_of_an_overlay() -> None:
    """A row of a misspelt table would never be launched."""
    options = [name.removeprefix("grid/") for name in rows() if name.startswith("grid/")]
    assert len(options) >= 19
    for option in options:
        assert (conf_dir() / "experiment" / f"{option.split('-')[0]}.yaml").is_file(), option


def test_a_table_is_all_of_its_grids() -> None:
    """Its own first; one alone where it is named; another experiment is left alone."""
    assert list(grids_of()) == ["own", "ft", "untrained", "probe"]
    assert list(grids_of("grid=mezo_opt13b-ft")) == ["ft"]
    for line in (["experiment=quickstart"], ["-m", "seed=0,1"], ["--cfg", "job", TABLE]):
        assert command_lines(line) == [line]


def test_typed_options_restrict_it_to_the_grids_that_have_them() -> None:
    """What no grid has goes to the overlay's own; other settings go to all grids."""
    assert grids_of("optimizer=adamw") == {"ft": {"optimizer=adamw"}}
    several = grids_of("optimizer=mezo,zero_shot,conmezo", "seed=3")
    assert several == {
        "own": {"optimizer=mezo,conmezo", "seed=3"},
        "untrained": {"optimizer=zero_shot", "seed=3"},
    }
    assert list(grids_of("tuning=lora")) == ["own"]
    assert "probe" in grids_of("task=sst2") and "probe" not in grids_of("task=copa")
    assert list(grids_of("task=snli")) == ["own"]


def test_one_command_launches_all_of_them_under_one_plan(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The plan has the runs of all grids, and there are as many."""
    jobs: list[Any] = []
    plans: list[int] = []
    begin = launch_log.begin

    def begun(*given: Any) -> None:
        plans.append(given[3])
        begin(*given)

    monkeypatch.setattr(launch_log, "begin", begun)
    monkeypatch.setattr("zobench.launch.launch.launch", jobs.append)
    assert command("experiment=loren_variance", "seed=0,1")[0] == 0
    wanted = sum(len(Grid.of(*words)) for words in commands("loren_variance")) * 2 // 3
    assert plans == [wanted] and len(jobs) == wanted
    optimizers = [job.meta["choices"]["optimizer"] for job in jobs]
    assert {*optimizers} == {"rloo", "mezo"} and optimizers == sorted(optimizers, reverse=True)


def test_a_mistake_is_reported_before_the_first_run(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also one that only a later grid would come to."""
    jobs: list[Any] = []
    monkeypatch.setattr("zobench.launch.launch.launch", jobs.append)
    status, _, error = command("experiment=loren_variance", "rule.vectors=false")
    assert status == 1 and "rule.vectors" in error and not jobs


def test_a_users_table_may_add_a_grid(tmp_path: Path, command: Command) -> None:
    """Found beside the tables of ours, it runs in the same command."""
    folder = tmp_path / "mine"
    (folder / "experiment").mkdir(parents=True)
    (folder / "cells").mkdir()
    overlay = "suite: mine\nhydra: {mode: MULTIRUN, sweeper: {params: {optimizer: mezo}}}\n"
    (folder / "experiment" / "mine.yaml").write_text(f"# @package _global_\n{overlay}")
    grid = "grid: {mine: {more: {hydra: {sweeper: {params: {optimizer: zero_shot}}}}}}"
    (folder / "cells" / "mine.yaml").write_text(grid)
    words = ["task=quadratic_columns", "logger=none", "budget.steps=2"]
    status, _, error = command("--config-dir", os.fspath(folder), "experiment=mine", *words)
    assert status == 0, error
    results = sorted((tmp_path / "runs" / "mine").glob("*/result.json"))
    assert {path.parent.name.split("-")[3] for path in results} == {"mezo", "zero_shot"}
    assert {read_json(path)["status"] for path in results} == {"done"}
