"""The loggers besides W&B mirror the rows of metrics.jsonl, one or several of them at a time."""

import csv
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.run.test_wandb_logger import META
from zobench.build import build
from zobench.errors import UserError
from zobench.run.folder import RunFolder
from zobench.run.loggers import base
from zobench.run.loggers.base import Logger, Row
from zobench.run.loggers.csv import CsvLogger
from zobench.run.loggers.many import Loggers
from zobench.run.loggers.none import NoLogger

Compose = Callable[..., dict[str, Any]]
ROWS: tuple[Row, ...] = (
    {"step": 0, "dev/loss": 0.5, "dev/accuracy": 0.25, "cost/forwards": 0},
    {"step": 2, "train/loss": None, "cost/forwards": 4},
    {"step": 2, "dev/loss": 0.25, "dev/accuracy": 0.5, "cost/forwards": 4},
    {"step": 2, "test/accuracy": 0.75, "cost/forwards": 4},
)
RESULT = {"status": "done", "dev": {"loss": 0.25}, "test": {"accuracy": 0.75}, "best_step": 2}


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    folder = RunFolder(tmp_path / "suite" / "run")
    folder.path.mkdir(parents=True)
    return folder


def mirror(logger: Logger, folder: RunFolder, settings: dict[str, Any], first: int = 1) -> None:
    """A run that is killed after `first` rows, and the attempt that ends it."""
    logger.begin(folder, settings, META, [])
    for row in ROWS[: first + 1]:  # one more than metrics.jsonl will have
        logger.log(row)
    logger.abort()
    logger.begin(folder, settings, META, ROWS[:first])
    for row in ROWS[first:]:
        logger.log(row)
    logger.end(RESULT)


def test_options_in_a_list_are_merged(compose: Compose) -> None:
    """`logger=[wandb,csv]` has both under their names, each with settings of its own."""
    settings = compose("logger=[wandb,csv]", "logger.wandb.project=p")
    assert settings["logger"].keys() == {"_target_", "wandb", "csv"}
    assert settings["logger"]["wandb"]["project"] == "p"
    assert isinstance(build(settings["logger"], "logger"), Loggers)
    assert isinstance(build(compose("logger=none")["logger"], "logger"), NoLogger)
    with pytest.raises(UserError, match=r"logger\.csv\.path"):
        build(compose("logger=csv", "+logger.csv.path=x")["logger"], "logger")


def test_each_option_can_be_built_or_names_its_package(compose: Compose) -> None:
    """A package that is not installed is an error of one line, which says what to install."""
    for option, package in (("tensorboard", "tensorboard"), ("mlflow", "mlflow")):
        node = compose(f"logger={option}")["logger"]
        if base.find_spec(package) is None:
            with pytest.raises(UserError, match=rf"^logger={option}: .*pip install .*loggers\]$"):
                build(node, "logger")
        else:
            assert isinstance(build(node, "logger"), Loggers)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "find_spec", lambda _: None)
    with pytest.raises(UserError, match="logger=x: the package y is not installed") as error:
        base.require("y", "x")
    assert "\n" not in str(error.value)


class Recorded:
    """A logger that notes its calls, and raises at one of them."""

    def __init__(self, fails: str = "") -> None:
        self.calls: list[str] = []
        self.fails = fails

    def _note(self, call: str) -> None:
        self.calls.append(call)
        if call == self.fails:
            raise OSError("the disk is full")

    def begin(self, *_: Any) -> None:
        self._note("begin")

    def log(self, *_: Any) -> None:
        self._note("log")

    def end(self, *_: Any) -> None:
        self._note("end")

    def abort(self) -> None:
        self._note("abort")


@pytest.mark.parametrize("fails", ["begin", "log", "end"])
def test_a_logger_that_fails_is_left_out(
    fails: str, folder: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is reported once, ended, and called no more; the others get everything."""
    first, other = Recorded(fails), Recorded()
    logger = Loggers(first=first, other=other)
    logger.begin(folder, {}, META, [])
    for row in ROWS:
        logger.log(row)
    logger.end(RESULT)
    assert other.calls == ["begin", *["log"] * len(ROWS), "end"]
    assert first.calls[-2:] == [fails, "abort"] and first.calls.count(fails) == 1
    said = capsys.readouterr().err
    assert said == "logger.first: OSError: the disk is full; the run continues without it\n"


def table(path: Path) -> list[dict[str, float | None]]:
    """The lines of the file, without the empty cells of a line."""
    with path.open(newline="") as file:
        lines = list(csv.DictReader(file))
    return [{k: float(v) for k, v in line.items() if v != ""} for line in lines]


def known(rows: Sequence[Row]) -> list[Row]:
    """The rows without their nulls."""
    return [{k: v for k, v in row.items() if v is not None} for row in rows]


def test_the_csv_has_every_row_once(folder: RunFolder, compose: Compose) -> None:
    """Also those of an attempt that was killed; what it wrote beyond metrics.jsonl is gone."""
    mirror(CsvLogger(), folder, compose())
    path = folder.path / "metrics.csv"
    assert table(path) == known(ROWS)
    assert path.read_text().splitlines()[0].split(",")[:3] == ["step", "dev/loss", "dev/accuracy"]
    assert [file.name for file in folder.path.iterdir()] == ["metrics.csv"]


def test_the_csv_is_readable_while_the_run_goes_on(folder: RunFolder) -> None:
    """After every row the file has all of them, in whole lines."""
    logger = CsvLogger()
    logger.begin(folder, {}, META, [])
    for count, row in enumerate(ROWS, start=1):
        logger.log(row)
        assert table(folder.path / "metrics.csv") == known(ROWS[:count])
    logger.end(RESULT)


def test_a_whole_run_is_mirrored(
    command: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    """`logger=[csv]` on the command line: metrics.csv is metrics.jsonl in columns."""
    small = ("task=quadratic", "optimizer.lr=0.01", "budget.steps=20", "suite=s")
    assert command(*small, "logger=[csv]")[0] == 0
    [path] = tmp_path.glob("runs/s/*/metrics.csv")
    lines = path.with_name("metrics.jsonl").read_text().splitlines()
    assert table(path) == known([json.loads(line) for line in lines])


def test_tensorboard_has_the_rows_as_scalars(folder: RunFolder, compose: Compose) -> None:
    """Every finite number at its step, those of a killed attempt once, and the result."""
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    from zobench.run.loggers.tensorboard import TensorBoardLogger

    mirror(TensorBoardLogger(), folder, compose("optimizer=conmezo"))
    events = EventAccumulator(str(folder.path / "tensorboard"))
    events.Reload()
    found = {key: [(e.step, e.value) for e in events.Scalars(key)] for key in events.scalars.Keys()}
    assert found["dev/loss"] == [(0, 0.5), (2, 0.25)]
    assert found["test/accuracy"] == [(2, 0.75)]
    assert found["result/test/accuracy"] == [(0, 0.75)]
    assert len(found["train/loss"]) == 1 and found["train/loss"][0][1] != found["train/loss"][0][1]


def test_mlflow_has_the_rows_as_metrics(folder: RunFolder, compose: Compose) -> None:
    """One run in the suite's experiment, with settings as parameters; a relaunch replaces it."""
    tracking = pytest.importorskip("mlflow.tracking")
    from zobench.run.loggers.mlflow import MlflowLogger

    mirror(MlflowLogger(), folder, compose("optimizer=conmezo"))
    client = tracking.MlflowClient((folder.path.parent / "mlruns").as_uri())
    experiment = client.get_experiment_by_name(META["suite"])
    [run] = client.search_runs([experiment.experiment_id])
    history = client.get_metric_history(run.info.run_id, "dev/loss")
    assert [(metric.step, metric.value) for metric in history] == [(0, 0.5), (2, 0.25)]
    assert run.info.run_name == META["name"] and run.info.status == "FINISHED"
    assert run.data.params["optimizer"] == "o" and run.data.params["seed"] == "3"
    assert "optimizer.sampler.theta" in run.data.params
    assert run.data.metrics["test/accuracy"] == 0.75
