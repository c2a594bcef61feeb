"""`stop_at_failure`: after a failed run, a sweep begins no further one."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Command = Callable[..., tuple[int, str, str]]
SHORT = (
    *("logger=none", "threads=1", "budget.steps=4", "train.batch_size=4", "suite=s"),
    *("task.sizes.train=24", "task.sizes.dev=16", "task.sizes.test=16"),
)
BAD_FIRST = ("-m", *SHORT, "model.path=zobench:nothing,zobench:tiny")
STOP = "stop_at_failure=true"


def begun(runs: Path) -> list[str]:
    """The names of the runs that have begun in the suite."""
    return sorted(path.parent.name for path in runs.glob("s/*/config.yaml"))


def test_the_rest_of_a_sweep_waits_for_the_next_launch(command: Command, tmp_path: Path) -> None:
    """One sentence says how many; without the setting the next launch carries them out.

    Runs that have a result are skipped as ever.
    """
    runs = tmp_path / "runs"
    status, out, err = command(*BAD_FIRST, STOP)
    assert status == 1 and "2 runs: 1 failed, 1 waiting" in out
    assert err.splitlines()[-1] == "stop_at_failure: 1 run was not begun; the next launch goes on"
    assert len(begun(runs)) == 1 and "nothing" in begun(runs)[0]
    assert "1 failed" in (said := command("status", "s")[1]) and "1 waiting" in said
    status, out, err = command(*BAD_FIRST)
    assert status == 1 and "1 failed, 1 done" in out and "not begun" not in err
    assert len(begun(runs)) == 2
    status, out, err = command(*BAD_FIRST, STOP)
    assert status == 1 and "1 failed, 1 skipped" in out and "not begun" not in err


def test_settings_that_are_refused_are_a_failure(command: Command, tmp_path: Path) -> None:
    status, _, err = command("-m", *SHORT, "train.batch_size=0,4,8", STOP)
    assert status == 1 and "stop_at_failure: 2 runs were not begun" in err
    assert not begun(tmp_path / "runs")


def test_a_diverged_run_is_a_result(command: Command) -> None:
    """The sweep goes on after it, and ends with status 1 as ever."""
    status, out, err = command("-m", *SHORT, "optimizer.lr=1e30,1e-4", STOP)
    assert status == 1 and "1 diverged, 1 done" in out and "not begun" not in err


def test_a_pack_that_fails_is_the_last(command: Command, tmp_path: Path) -> None:
    """The first of its runs is tried alone, as ever; the other and the next pack are not begun."""
    words = ("pack_runs=2", "model.path=zobench:nothing", "seed=0,1,2,3", STOP)
    status, _, err = command("-m", *SHORT, *words)
    assert status == 1 and "stop_at_failure: 3 runs were not begun" in err
    assert len(begun(tmp_path / "runs")) == 2  # of the pack


def test_a_search_continues_at_the_next_launch(command: Command) -> None:
    """Three trials and the run of the last rung are left of it."""
    words = ("--trials", "4", "--reduction", "4", "model.path=zobench:nothing", "lr_factor=1")
    rates = "optimizer.lr=tag(log,interval(1e-5,1e-3))"
    status, out, err = command("tune", *SHORT, *words, rates, STOP)
    assert status == 1 and "s_search: 4 of 4 runs of rung 1 of 2 have no result" in out
    assert "stop_at_failure: 4 runs were not begun" in err


def test_no_run_has_it_in_its_settings(compose: Callable[..., dict[str, Any]]) -> None:
    """It concerns the other runs of a command."""
    assert compose(STOP) == compose()


@pytest.mark.faults
def test_runs_at_the_same_time_end(tmp_path: Path) -> None:
    """Those that have begun have results; the launcher's processes begin no other."""
    launcher = ("hydra/launcher=local", "hydra.launcher.n_jobs=2")
    code = "from zobench.cli import main; main()"
    ended = subprocess.run(
        [sys.executable, "-c", code, *BAD_FIRST, "seed=0,1,2", STOP, *launcher],
        env={**os.environ, "ZOBENCH_RUNS": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 1, ended.stderr
    done = [path.parent.name for path in tmp_path.glob("s/*/result.json")]
    failed = [path.parent.name for path in tmp_path.glob("s/*/failure.json")]
    assert failed and sorted(done + failed) == begun(tmp_path)
    left = 6 - len(done) - len(failed)
    assert left and f"stop_at_failure: {left} run" in ended.stderr
