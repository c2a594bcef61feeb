"""`hydra/sweeper=optuna`: its trials are runs, and its best trial is the best run on dev."""

import importlib
import os
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from zobench.launch.launch_log import FOLDER, rows_of
from zobench.report.runs import read_suite

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # Optuna 2.10 uses what libraries have deprecated since
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper")
    importlib.import_module("optuna.samplers")

Command = Callable[..., tuple[int, str, str]]
SHORT = (
    *("logger=none", "threads=1", "budget.steps=4", "train.batch_size=4", "train.eval_every=100"),
    *("task.sizes.train=24", "task.sizes.dev=16", "task.sizes.test=8", "suite=s"),
)
SEARCH = (
    *("-m", "hydra/sweeper=optuna", "hydra.sweeper.sampler.seed=0", *SHORT),
    *("hydra.sweeper.n_trials=4", "hydra.sweeper.direction=minimize", "hydra.sweeper.n_jobs=1"),
)
RATE = "optimizer.lr=tag(log,interval(1e-5,1e-2))"


def best_of(suite: str) -> dict[str, Any]:
    """What Optuna leaves in the suite's folder: best_params and best_value."""
    path = Path(os.environ["ZOBENCH_RUNS"]) / suite / "optimization_results.yaml"
    return dict(yaml.safe_load(path.read_text()))


def test_the_best_trial_is_the_best_run(command: Command) -> None:
    """The best value is the lowest dev loss, at its run's rate; a second launch trains nothing."""
    status, out, err = command(*SEARCH, RATE)
    assert status == 0, err
    runs = Path(os.environ["ZOBENCH_RUNS"])
    suite = read_suite(runs, "s")
    frame = suite.frame
    assert len(frame) == 4 and "4 runs: 4 done" in out
    assert rows_of(next((runs / FOLDER).iterdir()))[0]["runs"] == 4
    best = frame.sort_values("dev/loss").iloc[0]
    found = best_of("s")
    assert found["best_value"] == best["dev/loss"]
    rate = suite.configs[best["id"]]["optimizer"]["lr"]
    assert found["best_params"]["optimizer.lr"] == pytest.approx(rate, rel=1e-5)
    results = {path: path.stat().st_mtime_ns for path in runs.glob("s/*/result.json")}
    status, out, _ = command(*SEARCH, RATE)
    assert status == 0 and "4 runs: 4 skipped" in out
    assert {path: path.stat().st_mtime_ns for path in runs.glob("s/*/result.json")} == results
    assert best_of("s") == found


def test_a_score_is_maximized_and_choices_are_searched(command: Command) -> None:
    """direction=maximize with another metric of dev; a search over optimizers, too."""
    arguments = ("hydra.sweeper.direction=maximize", "optimized_metric=dev/accuracy")
    status, _, err = command(*SEARCH, *arguments, RATE, "optimizer=choice(mezo,conmezo)")
    assert status == 0, err
    frame = read_suite(Path(os.environ["ZOBENCH_RUNS"]), "s").frame
    assert best_of("s")["best_value"] == frame["dev/accuracy"].max()
    assert best_of("s")["best_params"]["optimizer"] in ("mezo", "conmezo")


def test_a_failed_trial_does_not_end_the_search(command: Command) -> None:
    """A run that fails has no value; the others are trained, and the best of them wins."""
    search = [word for word in SEARCH if not word.startswith("task.sizes.train")]
    sizes = "task.sizes.train=choice(24,0)"  # a run needs a row
    status, out, err = command(*search, "hydra.sweeper.n_trials=6", RATE, sizes)
    assert status == 1
    frame = read_suite(Path(os.environ["ZOBENCH_RUNS"]), "s").frame
    failed = len(re.findall(r"task\.sizes\.train=0: must be", err))
    assert 0 < len(frame) < 6 and failed
    assert "6 runs: " in out
    assert best_of("s")["best_value"] == frame["dev/loss"].min()
    assert "Traceback" not in err


def test_a_diverged_trial_is_infinitely_bad(command: Command) -> None:
    """It counts as a trial of the search, also for a sampler that has seen enough of them."""
    arguments = ("hydra.sweeper.n_trials=8", "hydra.sweeper.sampler.n_startup_trials=4")
    status, _, err = command(*SEARCH, *arguments, "optimizer.lr=tag(log,interval(1e-3,1e30))")
    assert status == 0, err
    frame = read_suite(Path(os.environ["ZOBENCH_RUNS"]), "s").frame
    assert "diverged" in set(frame["status"]) and "done" in set(frame["status"])
    assert best_of("s")["best_value"] == frame[frame["status"] == "done"]["dev/loss"].min()


def test_a_search_of_failed_trials_ends_in_a_line(command: Command) -> None:
    """Optuna has no best trial then; the command says so without a traceback."""
    status, _, err = command(*SEARCH, RATE, "task.sizes.train=0")
    assert status == 1
    assert "Traceback" not in err and "no trial" in err.lower()
