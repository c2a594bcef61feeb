"""Runs that an agent of a W&B sweep starts: which W&B run they report to, and how they end."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.pages import ROOT, text_of
from tests.wandb_file import items, records
from zobench import api
from zobench.launch.job import Job, Outcome
from zobench.launch.launch import report
from zobench.launch.process import attempt
from zobench.run.folder import RunFolder, read_json
from zobench.run.loggers.wandb import WandbLogger
from zobench.run.loggers.wandb_agent import asked_for

SHORT = (
    *("threads=1", "budget.steps=2", "train.batch_size=4"),
    *("task.sizes.train=24", "task.sizes.dev=16", "task.sizes.test=16"),
)
META: dict[str, Any] = {
    **{"id": "00000000", "name": "n", "suite": "s", "setting": "11111111", "seed": 0},
    "choices": {"model": "m", "tuning": "full", "task": "t", "optimizer": "o"},
}
Agent = Callable[..., int]


@pytest.fixture
def agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Agent:
    """`agent("run", {"optimizer.lr": 1e-4})`: the status of the command that wandb's agent starts.

    The command is that of examples/wandb_sweep.yaml, made short. No server is asked.
    """
    from wandb.wandb_agent import Agent as Theirs

    text_of(ROOT / "docs" / "wandb.md")  # skips where there is no checkout
    sweep = yaml.safe_load((ROOT / "examples" / "wandb_sweep.yaml").read_text())
    for name in ("WANDB_RUN_ID", "WANDB_SWEEP_PARAM_PATH"):
        monkeypatch.setenv(name, "")  # which the agent sets; put back afterwards
    monkeypatch.setenv("WANDB_SWEEP_ID", "sweep1")
    scripts = os.path.dirname(sys.executable)
    monkeypatch.setenv("PATH", os.pathsep.join([scripts, os.environ["PATH"]]))
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    monkeypatch.setenv("ZOBENCH_RUNS", str(tmp_path / "runs"))
    theirs = Theirs.__new__(Theirs)
    theirs._in_jupyter, theirs._function, theirs._forward_signals = False, None, False
    theirs._run_processes, theirs._sweep_command = {}, [*sweep["command"], *SHORT]

    def call(run: str, parameters: dict[str, Any]) -> int:
        args = {key: {"value": value} for key, value in parameters.items()}
        theirs._command_run({"run_id": run, "args": args, "program": sweep["program"]})
        status: int = theirs._run_processes[run]._popen.wait(timeout=500)
        return status

    return call


def reported(folder: Path) -> tuple[Any, dict[str, Any], list[dict[str, Any]]]:
    """The record of a folder's W&B run, its last summary values, its rows."""
    found = list(records(folder))
    [run] = [message for kind, message in found if kind == "run"]
    summary: dict[str, Any] = {}
    for kind, message in found:
        summary |= items(message.update) if kind == "summary" else {}
    return run, summary, [items(m.item) for kind, m in found if kind == "history"]


@pytest.mark.smoke
def test_a_run_reports_to_the_agents_run(
    agent: Agent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under its id, with the sweep's parameters and metric.

    An agent that asks for the same settings again gets the numbers without a training.
    """
    parameters = {"optimizer.lr": 3.3e-05, "sampler.beta": 0.9}
    assert agent("first", parameters) == 0
    [folder] = (tmp_path / "runs" / "wandb_sweep").iterdir()
    run, summary, rows = reported(folder)
    assert (run.run_id, run.sweep_id) == ("first", "sweep1")
    assert read_json(folder / "meta.json")["wandb"] == "first"
    config = items(run.config.update)
    assert {key: config[key] for key in parameters} == parameters
    assert config["optimizer/lr"] == 3.3e-05 and config["optimizer"] == "conmezo"
    result = read_json(folder / "result.json")
    metric = yaml.safe_load((ROOT / "examples" / "wandb_sweep.yaml").read_text())["metric"]["name"]
    assert summary[metric] == result["dev"]["loss"]
    ledger = (folder / "ledger.bin").stat().st_mtime_ns
    monkeypatch.setenv("WANDB_RUN_ID", "second")
    monkeypatch.delenv("WANDB_SWEEP_PARAM_PATH")  # wandb leaves this file open in our process
    assert [outcome.status for outcome in attempt([Job.begun(folder)])] == ["done"]
    run, again, same = reported(folder)
    assert (run.run_id, run.sweep_id) == ("second", "sweep1")
    assert again[metric] == summary[metric]
    assert [row["step"] for row in same] == [row["step"] for row in rows]
    assert (folder / "ledger.bin").stat().st_mtime_ns == ledger


def test_a_bad_run_fails_the_agents_command(agent: Agent) -> None:
    assert agent("bad", {"optimizer.lr": -1.0}) == 1


def test_a_resumed_run_keeps_the_agents_id(
    compose: Callable[..., dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where no agent resumes it; another agent's id takes its place."""
    import wandb

    folder = RunFolder(tmp_path / "run")
    folder.path.mkdir()
    rows = [{"step": step, "dev/loss": 0.5 - step / 10} for step in range(4)]
    parts = ((rows[:0], rows[:2], "a"), (rows[:2], rows[2:3], None), (rows[:3], rows[3:], "b"))
    for known, new, run in parts:
        for name, value in (("WANDB_RUN_ID", run), ("WANDB_SWEEP_ID", run and "sweep1")):
            monkeypatch.setenv(name, value) if value else monkeypatch.delenv(name)
        wandb.teardown()  # which has read the environment
        logger = WandbLogger(project="p", entity=None, mode="offline", tags=[])
        logger.begin(folder, compose(), META, known)
        for row in new:
            logger.log(row)
        logger.abort()
        begun, _, logged = reported(folder.path)
        assert begun.run_id == (run or "a")
        assert [row["step"] for row in logged] == [row["step"] for row in [*known, *new]]


@pytest.mark.parametrize("several", [False, True])
def test_several_runs_do_not_share_it(
    command: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch, several: bool
) -> None:
    """A command with one run keeps what the agent asks for; a sweep says that it does not.

    In the sweep of the agent, a diverged run is a trial like any other.
    """
    monkeypatch.setenv("WANDB_RUN_ID", "only")
    monkeypatch.setenv("WANDB_SWEEP_ID", "sweep1")
    asked: list[str | None] = []

    def diverged(job: Job) -> None:
        asked.append(asked_for())
        report(Outcome("diverged", job.folder.path.name, "a reason"), job.folder)

    monkeypatch.setattr("zobench.launch.launch.launch", diverged)
    words = ("-m", "seed=0,1") if several else ("seed=0",)
    status, _, err = command(*words, *SHORT)
    assert status == int(several) and asked == ([None, None] if several else ["only"])
    assert ("W&B: none of these runs reports to run only" in err) == several


def test_a_function_of_an_agent_reports_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """`zobench.api` leaves the agent's run to its caller, who may have several runs in it."""
    monkeypatch.setenv("WANDB_RUN_ID", "only")
    monkeypatch.setenv("WANDB_SWEEP_ID", "sweep1")
    asked: list[str | None] = []
    monkeypatch.setattr("zobench.cli.launched", lambda _: asked.append(asked_for()))
    api._carry_out(["seed=0"])
    assert asked == [None] and asked_for() == "only"
    assert "WANDB_SWEEP_PARAM_PATH" not in os.environ
