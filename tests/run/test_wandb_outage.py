"""Whatever fails at W&B, a run ends as without it, and says so once."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.run.test_wandb_logger import META
from tests.wandb_file import items, records
from zobench.run.folder import RunFolder
from zobench.run.loggers import mirror
from zobench.run.loggers.wandb import WandbLogger
from zobench.run.runner import run

Compose = Callable[..., dict[str, Any]]
ROWS: list[dict[str, float | None]] = [{"step": step, "dev/loss": 0.5} for step in range(5)]
RESULT = {"status": "done", "dev": {"loss": 0.5}}


class Outage(Exception):
    """What the fakes raise."""


class FakeRun:
    """Stands in for a W&B run; one that is online fails at its n-th `fails`."""

    step = 0

    def __init__(self, mode: str, fails: str, after: int) -> None:
        self.mode, self.fails, self.after = mode, fails, after
        self.rows: list[Any] = []
        self.summary: dict[str, Any] = {}
        self.finished: int | None = None

    def _perhaps(self, name: str) -> None:
        if self.mode == "online" and self.fails == name:
            self.after -= 1
            if self.after < 0:
                raise Outage("no server\nand a second line")

    def define_metric(self, *_: Any, **__: Any) -> None:
        self._perhaps("define_metric")

    def log(self, row: Any) -> None:
        self._perhaps("log")
        self.rows.append(row)

    def finish(self, exit_code: int) -> None:
        self._perhaps("finish")
        self.finished = exit_code


@pytest.fixture
def logger_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compose: Compose
) -> Callable[..., tuple[list[FakeRun], str]]:
    """`logger_on("log", 2)`: the W&B runs of a logger from begin to end, and its messages."""
    import wandb

    def live(
        fails: str, after: int, capfd: pytest.CaptureFixture[str]
    ) -> tuple[list[FakeRun], str]:
        made: list[FakeRun] = []

        def init(**settings: Any) -> FakeRun:
            if fails == "every init" or (fails == "init" and settings["mode"] == "online"):
                raise Outage("bad key")
            made.append(FakeRun(settings["mode"], fails, after))
            return made[-1]

        monkeypatch.setattr(wandb, "init", init)
        folder = RunFolder(tmp_path / "run")
        folder.path.mkdir()
        logger = WandbLogger(project="p", entity=None, mode="online", tags=[])
        logger.begin(folder, compose(), META, ROWS[:2])
        for row in ROWS[2:]:
            logger.log(row)
        logger.end(RESULT)
        return made, capfd.readouterr().err

    return live


@pytest.mark.parametrize(
    ("fails", "after"),
    [("init", 0), ("define_metric", 2), ("log", 0), ("log", 1), ("log", 3), ("finish", 0)],
)
def test_an_outage_ends_in_an_offline_run_with_every_row(
    logger_on: Callable[..., tuple[list[FakeRun], str]],
    fails: str,
    after: int,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """From whatever call on: one line on stderr, then all rows and the result, closed properly."""
    made, said = logger_on(fails, after, capfd)
    assert [one.mode for one in made] == (["offline"] if fails == "init" else ["online", "offline"])
    assert made[-1].rows == ROWS and made[-1].finished == 0
    assert made[-1].summary["status"] == "done"
    assert said.count("\n") == 1 and "mirrored offline" in said and "Outage" in said


def test_without_even_an_offline_run_there_is_no_mirror(
    logger_on: Callable[..., tuple[list[FakeRun], str]], capfd: pytest.CaptureFixture[str]
) -> None:
    """Both failures are reported; nothing is raised."""
    made, said = logger_on("every init", 0, capfd)
    assert made == [] and said.count("\n") == 2 and "is not mirrored" in said


def test_a_missing_package_is_no_mirror(
    compose: Compose,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """A whole run ends with its result, and one line says what it lacked."""
    monkeypatch.setitem(sys.modules, "wandb", None)
    folder = RunFolder(tmp_path / "run")
    small = ("task=quadratic_columns", "budget.steps=3", "logger=wandb", f"runs_root={tmp_path}")
    folder.begin(compose(*small), META)
    assert run(folder)["status"] == "done" and folder.result.is_file()
    said = capfd.readouterr().err
    assert said.count("W&B: ") == 1 and "wandb" in said and "is not mirrored" in said


@pytest.mark.faults
def test_a_server_that_is_not_there_and_a_bad_key(
    compose: Compose,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """W&B itself in online mode: the offline file has every row of the run."""
    import wandb

    wandb.teardown()
    monkeypatch.setattr(mirror, "_INIT_SECONDS", 5.0)
    monkeypatch.delenv("WANDB_MODE")
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    for number, key in enumerate(("not a key", "0" * 40)):
        monkeypatch.setenv("WANDB_API_KEY", key)
        folder = RunFolder(tmp_path / f"run{number}")
        small = (
            "task=quadratic_columns",
            "budget.steps=3",
            "logger=wandb",
            "logger.wandb.mode=online",
        )
        folder.begin(compose(*small, f"runs_root={tmp_path}"), META)
        assert run(folder)["status"] == "done"
        assert "mirrored offline" in capfd.readouterr().err
        rows = [items(m.item) for kind, m in records(folder.path) if kind == "history"]
        assert len(rows) == len(folder.metrics.read_text().splitlines())
    wandb.teardown()
