"""What a sweep varies is in the names of its runs; a run has one folder, whatever its name."""

import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.test_cli import FEW, TINY
from zobench.launch import process
from zobench.launch.job import Job
from zobench.launch.run_lock import claimed
from zobench.names import short_settings
from zobench.run.folder import RunFolder
from zobench.settings import RunSettings

Command = Callable[..., tuple[int, str, str]]
QUICK = ("budget.steps=2", "logger=none", "task=quadratic_columns", "threads=1")


def names(suite: Path) -> list[str]:
    """Names of the run folders, without task, model, tuning and id."""
    found = sorted(path.name for path in suite.iterdir() if path.is_dir())
    return [name.partition("-full-")[2].rpartition("-")[0] for name in found]


def test_a_sweep_names_what_it_varies(command: Command, tmp_path: Path) -> None:
    """Not what is fixed, nor what the name has anyway; W&B and progress show the same name."""
    sweep = ("-m", "optimizer=mezo,mezo_adam", "optimizer.lr=3e-4,1e-5", "seed=3")
    status, out, _ = command(*sweep, *QUICK, "optimizer.eps=1e-3", "suite=s")
    assert status == 0
    found = names(tmp_path / "runs" / "s")
    rows = ("mezo-lr=1e-5", "mezo-lr=3e-4", "mezo_adam-lr=1e-5", "mezo_adam-lr=3e-4")
    assert found == [f"{row}-s3" for row in rows]
    for folder in (tmp_path / "runs" / "s").glob("*/"):
        meta = json.loads((folder / "meta.json").read_text())
        assert meta["name"] == folder.name and f"{folder.name}: done" in out


def test_an_experiments_grid_names_what_it_varies(command: Command, tmp_path: Path) -> None:
    """The grid of a file, overridden by the command line where that sets one value."""
    folder = tmp_path / "conf" / "experiment"
    folder.mkdir(parents=True)
    params = "{optimizer.lr: '1e-5,1e-4', sampler: 'gaussian,rademacher', train.batch_size: 4}"
    (folder / "mine.yaml").write_text(
        f"# @package _global_\nsuite: s\nhydra: {{mode: MULTIRUN, sweeper: {{params: {params}}}}}\n"
    )
    options = ("--config-dir", str(folder.parent), "experiment=mine", *QUICK)
    assert command(*options, "optimizer.lr=1e-3")[0] == 0
    samplers = ("gaussian", "rademacher")
    found = names(tmp_path / "runs" / "s")
    assert found == [f"mezo-sampler={sampler}-s0" for sampler in samplers]


@pytest.mark.smoke
def test_a_search_names_its_trials(command: Command, tmp_path: Path) -> None:
    """Their settings, which the first has not, and the budget of a rung before the last."""
    search = ("optimizer.lr=tag(log,interval(1e-5,1e-3))", "--trials", "3", "--rungs", "2")
    assert command("tune", *QUICK[1:], "budget.steps=6", "suite=s", *search)[0] == 0
    found = names(tmp_path / "runs" / "s_search")
    assert len(found) == 4 and sum("-lr=" in name for name in found) >= 2
    assert sum("-steps=2-" in name for name in found) == 3
    assert sum("-steps=" not in name for name in found) == 1


@pytest.mark.parametrize("first", ["alone", "sweep"])
def test_a_run_is_found_by_its_id(command: Command, tmp_path: Path, first: str) -> None:
    """Launched alone and in a sweep it is trained once, and keeps its first name."""
    alone = (*QUICK, "optimizer.lr=3e-4", "suite=s")
    sweep = ("-m", *QUICK, "optimizer.lr=3e-4,1e-5", "suite=s")
    order = (alone, sweep) if first == "alone" else (sweep, alone)
    assert command(*order[0])[0] == 0
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").rglob("result.json")}
    status, out, _ = command(*order[1])
    assert status == 0 and "skipped" in out
    after = {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").rglob("result.json")}
    assert before.items() <= after.items() and len(after) == 2


def job(compose: Callable[..., dict[str, Any]], root: Path, *varied: str) -> Job:
    plain = compose(*QUICK, f"runs_root={root}", "suite=s")
    choices = {"task": "quadratic", "model": "point", "tuning": "full", "optimizer": "mezo"}
    return Job.of(RunSettings.of(plain), plain, choices, varied)


def test_two_names_of_a_run_are_not_both_trained(
    compose: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    """Where two commands chose their folders at the same moment, the second leaves its own."""
    one, two = job(compose, tmp_path), job(compose, tmp_path, "lr=3e-4")
    assert one.folder.path != two.folder.path
    with claimed(_made(one.folder)):
        [outcome] = process.attempt([two])
    assert outcome.status == "elsewhere" and one.folder.path.name in outcome.reason
    assert not two.folder.path.exists()
    assert process.attempt([one])[0].status == "done"
    [outcome] = process.attempt([two])
    assert outcome.status == "elsewhere" and not two.folder.path.exists()
    again = job(compose, tmp_path, "lr=3e-4")
    assert again.folder.path == one.folder.path and again.meta["name"] == one.meta["name"]


def _made(folder: RunFolder) -> Path:
    folder.path.mkdir(parents=True)
    return folder.path


def test_names_are_short_and_plain() -> None:
    """Numbers in few letters, paths by their end, keys by theirs; too much is left out."""
    settings = {"optimizer.lr": "0.0003", "model.path": "/data/opt 125m/", "seed": "1"}
    assert short_settings(settings) == ["lr=3e-4", "path=opt-125m", "seed=1"]
    same = {"train.batch_size": "16", "evaluation.batch_size": "8", "optimizer.eps": "0.01"}
    assert short_settings(same) == ["train.batch_size=16", "evaluation.batch_size=8", "eps=0.01"]
    values = ("1e-05", "100000", "1e30", "[1,2]", "null", "../up", "zobench:tiny", "'a b'", "0.33")
    assert [short_settings({"k": value})[0] for value in values] == [
        *("k=1e-5", "k=100000", "k=1e30", "k=1-2", "k=null", "k=up", "k=tiny", "k=a-b", "k=0.33")
    ]
    many = short_settings({f"section.key{i}": "x" * 40 for i in range(9)})
    assert len("-".join(many)) <= 80 and many[0] == f"key0={'x' * 24}"


def test_overrides_txt_starts_the_run_again(command: Command, tmp_path: Path) -> None:
    """Its command line composes the same run, of a sweep too."""
    sweep = ("-m", *QUICK, "optimizer.lr=3e-4,1e-5", "suite=s")
    assert command(*sweep)[0] == 0
    for folder in (tmp_path / "runs" / "s").glob("*/"):
        program, *words = shlex.split((folder / "overrides.txt").read_text())
        assert program == "zobench" and "-m" not in words
        status, out, _ = command(*words)
        assert status == 0 and f"{folder.name}: skipped" in out


def test_rerun_continues_a_run_from_its_folder(command: Command, tmp_path: Path) -> None:
    """An unfinished one goes on in its folder; a finished one stays; others are refused."""
    assert command(*TINY, *FEW, "suite=s")[0] == 0
    [folder] = (tmp_path / "runs" / "s").iterdir()
    result = (folder / "result.json").read_bytes()
    status, out, _ = command("rerun", str(folder))
    assert status == 0 and f"{folder.name}: finished (done)" in out and "zobench rm" in out
    (folder / "result.json").unlink()
    status, out, err = command("rerun", str(folder))
    assert status == 0 and f"{folder.name}: done" in out, err
    assert [path.name for path in (tmp_path / "runs" / "s").iterdir()] == [folder.name]
    again = json.loads((folder / "result.json").read_bytes())
    assert {again[key] == value for key, value in json.loads(result).items() if key == "test"} == {
        True
    }
    status, _, err = command("rerun", str(tmp_path))
    assert status == 1 and "no run folder" in err and len(err.splitlines()) == 1


def test_rerun_of_a_run_that_fails_again(command: Command, tmp_path: Path) -> None:
    """Its exit status and message are those of a launch."""
    assert command(*TINY, *FEW, "suite=s", "model.path=zobench:nothing")[0] == 1
    [folder] = (tmp_path / "runs" / "s").iterdir()
    status, _, err = command("rerun", str(folder))
    assert status == 1 and "failed" in err and "log: " in err
