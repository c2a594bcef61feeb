"""Whole runs of a reward task: rows of evolution strategies, resumed runs, replayed ledgers."""

import json
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.run.attempts import Attempts
from zobench.build import build_optimizer
from zobench.launch.process import ForkServer
from zobench.run.closure import shares_of
from zobench.run.folder import RunFolder, read_json
from zobench.run.meter import Meter
from zobench.run.progress import BudgetClock
from zobench.run.ranks.shards import Shard
from zobench.run.resume import ResumePoint
from zobench.run.runner import prepare_run, run
from zobench.run.steps import Steps
from zobench.settings import RunSettings

Compose = Callable[..., dict[str, Any]]
Command = Callable[..., tuple[int, str, str]]
ROWS = {
    "es": ("optimizer=es", "estimator.population=4", "optimizer.lr=0.02"),
    "eggroll": ("optimizer=eggroll", "estimator.population=4", "optimizer.lr=0.02"),
    "mezo": ("optimizer=mezo", "optimizer.lr=1e-4"),
}
SMALL = (
    *("task=countdown", "task.prompt='{{ target }} ='", "task.samples=2", "task.pass_at=[1,2]"),
    "task.reward=tests.run.test_reward_runs.short",
    *("task.max_new_tokens=6", "task.sizes={train: 12, dev: 3, test: 4}", "train.batch_size=2"),
    *("budget.steps=6", "train.eval_every=3", "train.log_every=1", "threads=1", "logger=none"),
)


def short(text: str, answers: list[str], row: dict[str, Any]) -> float:
    """A reward that random texts differ in: few characters for the numbers of the row."""
    del answers
    return 1 / (1 + len(text) + row["numbers"][0])


@pytest.mark.parametrize("row", ROWS)
def test_a_row_trains_on_rewards_and_its_ledger_replays(
    row: str,
    compose: Compose,
    command: Command,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Steps have different losses; `zobench verify` gets the same numbers from the ledger."""
    folder = RunFolder(tmp_path / "run")
    choices = {"task": "t", "model": "tiny", "tuning": "full", "optimizer": row}
    meta = {"id": "0" * 8, "name": "n", "suite": "s", "seed": 0, "choices": choices}
    folder.begin(compose(*SMALL, *ROWS[row], f"runs_root={tmp_path}"), meta)
    result = run(folder)
    assert result["status"] == "done" and result["steps"] == 6
    assert {"loss", "reward", "accuracy", "pass_at_1", "pass_at_2"} == result["test"].keys()
    assert result["test"]["loss"] == -result["test"]["reward"]
    lines = [json.loads(line) for line in folder.metrics.read_text().splitlines()]
    assert len({line["train/loss"] for line in lines if "train/loss" in line}) > 3
    capfd.readouterr()
    status, out, err = command("verify", str(folder.path))
    assert (status, err) == (0, "") and "(6 steps replayed)" in out


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux runs are forked")
def test_a_killed_run_draws_the_same_samples_when_it_resumes(
    server: ForkServer, compose: Compose, tmp_path: Path
) -> None:
    """Ledger, weights, predictions and metrics have the bits of the run that was left alone."""
    attempts = Attempts(server, compose, tmp_path, *SMALL, *ROWS["es"], "optimizer.eps=0.02")
    attempts.count()
    attempts.survive([random.Random(0).randrange(attempts.instants)])
    losses = [row["dev/reward"] for row in _rows(attempts.folder("whole")) if "dev/reward" in row]
    assert len({*losses}) > 1


def test_rows_of_one_length_together_give_the_same_run(compose: Compose, tmp_path: Path) -> None:
    """Micro-batches and batches of evaluation change nothing either."""
    found = []
    for number, extra in enumerate(
        ((), ("train.micro_batch_size=1", "evaluation.batch_size=1"), ("task.rows_at_once=3",))
    ):
        folder = RunFolder(tmp_path / f"run-{number}")
        choices = {"task": "t", "model": "tiny", "tuning": "full", "optimizer": "es"}
        meta = {"id": "0" * 8, "name": "n", "suite": "s", "seed": 0, "choices": choices}
        folder.begin(compose(*SMALL, *ROWS["es"], "budget.steps=2", *extra), meta)
        run(folder)
        found.append(read_json(folder.result)["test"])
    assert found[0] == found[1] == pytest.approx(found[2])


def test_a_row_gets_other_noise_in_each_epoch(compose: Compose) -> None:
    """A function of row and step: the same for a run that begins anew, in parts, and on ranks."""
    device = torch.device("cpu")
    overrides = (*SMALL, *ROWS["mezo"], "task.sizes={train: 2, dev: 1, test: 1}")
    made = prepare_run(RunSettings.of(compose(*overrides)), device)
    problem: Any = made.problem

    def sampled(step: int, stream: int = 0, *more: str, sharded: bool = False) -> Any:
        """The texts of each row, by its place."""
        settings = RunSettings.of(compose(*overrides, *more))
        optimizer = build_optimizer(settings.optimizer, made.trainable)
        clock = BudgetClock(settings.budget, Meter(device))
        parts = (made.model, problem, optimizer, clock, ResumePoint(), problem.loss)
        whole = Steps(settings.train, settings.seed, *parts).batch(step, stream)
        found: dict[Any, Any] = {}
        for _, batch in shares_of(whole):
            if sharded:
                batch = problem.batch([0, 1])
                batch = Shard(batch, batch.cut(0, 2), [2, 0]).drawn(step, stream).part
            texts = problem.sampled(made.model, batch.prompts)
            found |= dict(zip([p.place for p in batch.prompts], texts, strict=True))
        return found

    first, second = sampled(0), sampled(1)
    assert first.keys() == second.keys() == {(0, 0), (0, 1)}
    assert all(first[place] != second[place] for place in first)
    assert sampled(1) == second
    assert sampled(1, 0, "train.micro_batch_size=1") == second == sampled(1, sharded=True)
    assert sampled(1, 1) != second
    made_of_choices = Shard(problem, problem, [1])  # a batch without noise stays as it is
    assert made_of_choices.drawn(0, 0) is made_of_choices


def _rows(folder: RunFolder) -> list[dict[str, Any]]:
    return [json.loads(line) for line in folder.metrics.read_text().splitlines()]
