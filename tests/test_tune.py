"""`zobench tune`: trials, rungs, winners, and that a stopped search ends like any other."""

import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import yaml
from omegaconf import OmegaConf

from zobench.errors import UserError
from zobench.paths import ASSETS_DIR, conf_dir
from zobench.report.runs import flatten, read_suite
from zobench.schema import register
from zobench.tune import Dimension, Halving, Search, sizes, space_of, trials_in, words

Command = Callable[..., tuple[int, str, str]]
SHORT = (
    *("logger=none", "threads=1", "budget.steps=9", "train.batch_size=4", "train.eval_every=100"),
    *("task.sizes.train=24", "task.sizes.dev=16", "task.sizes.test=8", "suite=s"),
)
FEW = ("--trials", "4", "--reduction", "2", "--rungs", "2")
UNSEARCHED = {"zero_shot", "linear_probe"}  # they take no step


@pytest.mark.parametrize(
    ("sweep", "share", "value"),
    [
        ("int(interval(1, 3))", 0.99, "3"),
        ("interval(1.0, 3.0)", 0.25, "1.5"),
        ("tag(log, interval(0.1, 1000))", 0.5, "10"),
        ("tag(log, int(interval(1, 1000)))", 0.5, "31"),
        ("choice(a, b, c)", 0.7, "c"),
        ("range(1, 5)", 0.3, "2"),
    ],
)
def test_a_share_of_a_dimension_is_a_value(sweep: str, share: float, value: str) -> None:
    """Linear, logarithmic, whole numbers or choices, as the sweep says."""
    [dimension] = space_of({"x": sweep})
    assert dimension.at(share) == value


@pytest.mark.parametrize(
    "sweep", ["3", "interval(3, 1)", "tag(log, interval(0, 1))", "interval(1, 1)"]
)
def test_a_bad_dimension_names_its_key(sweep: str) -> None:
    with pytest.raises(UserError, match=r"search: optimizer\.lr: "):
        space_of({"optimizer.lr": sweep})


def test_rows_with_the_same_space_have_the_same_trials() -> None:
    """The first trial is the row's own settings; the others spread over the space."""
    [rate] = space_of({"lr_factor": "tag(log, interval(0.1, 100))"})
    theta = Dimension("sampler.theta", values=("1.3", "1.4"))
    trials = trials_in([rate], 9)
    assert trials == trials_in([rate], 9) and trials[:5] == trials_in([rate], 5)
    assert trials[0] == () and len(set(trials)) == 9
    values = sorted(float(trial[0].partition("=")[2]) for trial in trials[1:])
    ratios = [after / before for before, after in itertools.pairwise(values)]
    assert max(ratios) < 10 ** (3 / 4)  # no gap above a quarter of the three decades
    both = trials_in([rate, theta], 9)
    assert {trial[1] for trial in both[1:]} == {"sampler.theta=1.3", "sampler.theta=1.4"}
    assert trials_in([], 9) == [()]
    assert set(trials_in([theta], 9)) == {(), ("sampler.theta=1.3",), ("sampler.theta=1.4",)}


def test_each_rung_has_fewer_trials() -> None:
    assert sizes(9, 3, 3) == [9, 3, 1]
    assert sizes(10, 3, 3) == [10, 4, 2]
    for numbers in ((0, 3, 3), (9, 1, 3), (9, 3, 0)):
        with pytest.raises(UserError, match=r"hydra\.sweeper\."):
            sizes(*numbers)


@pytest.mark.parametrize("row", sorted(p.stem for p in (conf_dir() / "optimizer").glob("*.yaml")))
def test_every_row_declares_a_space(row: str, compose: Callable[..., dict[str, Any]]) -> None:
    """A space that parses and has a rate; it is not among a run's settings."""
    import hydra

    register()
    with hydra.initialize_config_dir(str(conf_dir()), version_base="1.3"):
        config = hydra.compose("config", [f"optimizer={row}"])
    declared: Any = OmegaConf.to_container(config.optimizer, resolve=False)
    space = {dimension.key for dimension in space_of(declared.get("search") or {})}
    assert ("lr_factor" in space) is (row not in UNSEARCHED)
    for key in space:
        assert OmegaConf.select(config, key) is not None, key
    assert "search" not in compose(f"optimizer={row}")["optimizer"]


def test_a_search_finds_what_its_runs_say(
    command: Command, compose: Callable[..., dict[str, Any]]
) -> None:
    """Two rungs; the winner has the lowest dev loss of the last; a second launch trains nothing."""
    status, out, _ = command("tune", *FEW, *SHORT, "optimizer=mezo,zero_shot")
    assert status == 0, out
    runs = Path(os.environ["ZOBENCH_RUNS"])
    frame = read_suite(runs, "s_search").frame
    counts = frame.groupby("optimizer").size().to_dict()
    assert counts == {"mezo": 6, "zero_shot": 1}
    table = yaml.safe_load((runs / "s_search" / "tuned.yaml").read_text())
    assert table.keys() == {"tuned"} and table["tuned"].keys() == {"tiny"}
    own = frame[frame["optimizer"] == "mezo"]
    last = own[own["cost/forwards"] == own["cost/forwards"].max()]
    best = last.sort_values("dev/loss").iloc[0]
    found = table["tuned"]["tiny"]["mezo"]
    rate = compose("optimizer=mezo", *(f"{k}={v}" for k, v in flatten(found).items()))["optimizer"]
    configs = read_suite(runs, "s_search").configs
    assert rate["lr"] == configs[best["id"]]["optimizer"]["lr"]
    assert f"dev/loss {best['dev/loss']:.4g}" in out
    assert table["tuned"]["tiny"]["zero_shot"] == {}
    status, again, _ = command("tune", *FEW, *SHORT, "optimizer=mezo,zero_shot")
    assert status == 0 and "done," not in again.replace("skipped, ", "")
    assert [line for line in out.splitlines() if "trials" in line] == [
        line for line in again.splitlines() if "trials" in line
    ]


@pytest.mark.smoke
def test_what_is_typed_is_not_searched_and_intervals_are(command: Command) -> None:
    """A grid over a setting makes a search for each of its values; a diverged trial is last."""
    arguments = ("lr_factor=1", "optimizer.lr=tag(log,interval(1e-4,1e30))", "seed=0,1")
    status, out, _ = command("tune", *FEW, *SHORT, *arguments)
    assert status == 0, out
    suite = read_suite(Path(os.environ["ZOBENCH_RUNS"]), "s_search")
    assert set(suite.frame["seed"]) == {0, 1}
    frame = suite.frame.assign(
        lr=[suite.configs[run]["optimizer"]["lr"] for run in suite.frame["id"]],
        budget=[suite.configs[run]["budget"]["steps"] for run in suite.frame["id"]],
    )
    assert "diverged" in set(frame["status"]) and frame["lr"].max() > 1e10
    for _, own in frame.groupby("seed"):
        first, last = (own[own["budget"] == steps] for steps in (4, 9))
        finite = first[first["status"] == "done"].sort_values("dev/loss")
        assert set(last["lr"]) <= set(finite["lr"]) or len(finite) < 2
        assert finite["lr"].iloc[0] in set(last["lr"])
    for seed in (0, 1):
        assert f"mezo, seed={seed}: " in out
        assert (suite.path / f"tuned-{seed}.yaml").is_file()


def test_winners_in_a_config_dir_are_the_settings_that_won(
    command: Command, tmp_path: Path
) -> None:
    """Also of a row that conf/cells has, which they replace; a value with / names a file, too."""
    for name in ("a", "b"):
        shutil.copytree(ASSETS_DIR / "tiny", tmp_path / name)
    swept = ["optimizer=dp_zo", f"model.path={tmp_path}/a,{tmp_path}/b"]
    status, out, err = command("tune", *FEW[:4], "--rungs", "1", *SHORT, *swept)
    assert status == 0, err
    suite = read_suite(Path(os.environ["ZOBENCH_RUNS"]), "s_search")
    files = sorted(suite.path.glob("tuned-*.yaml"))
    assert [path.stem[-2:] for path in files] == ["-a", "-b"] and "of its own" in out
    for path in files:
        folder = tmp_path / path.stem
        (folder / "cells").mkdir(parents=True)
        shutil.copy(path, folder / "cells")
        model = f"model.path={tmp_path}/{path.stem[-1]}"
        assert f"for {model};" in path.read_text()
        line = ("--config-dir", str(folder), *SHORT, "optimizer=dp_zo", model)
        status, _, err = command(*line)
        assert status == 0, err
        runs = read_suite(suite.path.parent, "s").configs.values()
        [mine] = [run for run in runs if run["model"]["path"] == f"{tmp_path}/{path.stem[-1]}"]
        own = [run["id"] for _, run in suite.frame.sort_values("dev/loss").iterrows()]
        best = next(r for r in own if suite.configs[r]["model"]["path"] == mine["model"]["path"])
        assert mine["optimizer"]["lr"] == suite.configs[best]["optimizer"]["lr"]


def test_a_budget_of_millions_is_a_whole_number() -> None:
    search = Search((), {}, [()], ("forwards", 1_200_001))
    sweeper: Any = Halving(None, trials=3, reduction=3, rungs=2, suite="s")
    launcher = Mock(launch=Mock(return_value=[]))
    sweeper._launcher, sweeper.validate_batch_is_legal = launcher, len
    for rung in (0, 1):
        sweeper._launch([search], [(0, 0)], rung)
    lines = [call.args[0][0] for call in launcher.launch.call_args_list]
    assert [line[0] for line in lines] == ["budget.forwards=400000", "budget.forwards=1200001"]


def test_a_search_without_a_finite_result_has_no_winner(command: Command) -> None:
    status, out, _ = command("tune", *FEW, *SHORT, "lr_factor=1", "optimizer.lr=1e30")
    assert status == 0
    assert "mezo: no trial has a finite dev/loss" in out
    assert not list(Path(os.environ["ZOBENCH_RUNS"]).glob("s_search/tuned*.yaml"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("hydra.sweeper.reduction=1",), r"hydra\.sweeper\.reduction=1: must be at least 2"),
        (("optimized_metric=test/accuracy",), "nothing is selected by test"),
        (("optimizer.search.lr_factor=3",), r"search: lr_factor: expected interval"),
        (("optimizer.lr=interval(3,1)",), r"search: optimizer\.lr: the interval's low"),
    ],
)
def test_a_bad_search_is_refused(
    command: Command, arguments: tuple[str, ...], message: str
) -> None:
    """In one line, before any run."""
    status, _, err = command("tune", *SHORT, *arguments)
    assert status == 1
    assert re.search(message, err) and len(err.strip().splitlines()) <= 2
    assert not list(Path(os.environ["ZOBENCH_RUNS"]).glob("s_search/*/result.json"))


def test_a_metric_that_dev_lacks_is_named(command: Command) -> None:
    status, _, err = command(*SHORT, "optimized_metric=dev/f1")
    assert status == 1
    assert "optimized_metric=dev/f1: the run has no such metric; it has dev/" in err


@pytest.mark.smoke
def test_a_stopped_search_continues_to_the_same_winner(command: Command, tmp_path: Path) -> None:
    """SIGTERM in the middle of a rung: the next launch has the same trials and the same winner."""
    arguments = ["tune", *FEW, *SHORT, "optimizer=conmezo"]
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    status, _, _ = command(*arguments, f"runs_root={whole}")
    assert status == 0
    code = "from zobench.cli import main; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", code, *arguments, f"runs_root={stopped}"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    ends = time.monotonic() + 120
    while len(list(stopped.glob("s_search/*/result.json"))) < 2 and time.monotonic() < ends:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=120)
    assert process.returncode == 75
    assert not (stopped / "s_search" / "tuned.yaml").exists()
    assert command(*arguments, f"runs_root={stopped}")[0] == 0
    for path in ("tuned.yaml",):
        assert (stopped / "s_search" / path).read_text() == (whole / "s_search" / path).read_text()
    folders = [
        {
            p.name: json.loads((p / "result.json").read_text())["dev"]
            for p in root.glob("s_search/*/")
        }
        for root in (whole, stopped)
    ]
    assert folders[0] == folders[1]


def test_other_sweepers_get_the_metric(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a run returns to Hydra is its metric of dev."""
    register()  # Hydra's scan for plugins makes the class anew
    from hydra._internal.core_plugins.basic_launcher import BasicLauncher

    returned: list[Any] = []
    launch = BasicLauncher.launch

    def noted(self: Any, *args: Any, **kwargs: Any) -> Any:
        found = launch(self, *args, **kwargs)
        returned.extend(one.return_value for one in found)
        return found

    monkeypatch.setattr(BasicLauncher, "launch", noted)
    status, _, _ = command("-m", *SHORT, "seed=0,1", "optimized_metric=dev/accuracy")
    assert status == 0
    frame = read_suite(Path(os.environ["ZOBENCH_RUNS"]), "s").frame
    assert returned == frame.sort_values("seed")["dev/accuracy"].tolist()


def test_the_command_line_of_tune() -> None:
    """Its options are settings of the sweeper; the rest are Hydra's."""
    assert words(["--trials", "5", "optimizer=mezo"]) == [
        *("-m", "hydra/sweeper=halving", "hydra.sweeper.trials=5", "optimizer=mezo")
    ]
    assert words(["--config-dir", "D", "optimizer=mezo", "seed=0,1"]) == [
        *("-m", "--config-dir", "D", "hydra/sweeper=halving", "optimizer=mezo", "seed=0,1")
    ]
