"""When a run does not go its whole way: losses that are not finite, that rise, dev without gain."""

import math
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.run.attempts import SMALL, Attempts, rows_of
from tests.run.spoiled import part, spoil
from zobench.launch.process import ForkServer
from zobench.run.closure import CountedLoss
from zobench.run.early_ends import MOST_IN_A_ROW, Patience, check_rise
from zobench.run.folder import RunFolder, read_json
from zobench.run.loggers.none import NoLogger
from zobench.run.metrics_log import MetricsLog
from zobench.run.runner import run
from zobench.run.together import run_together
from zobench.run.verify import Verification
from zobench.zo.engine import Diverged
from zobench.zo.ledger import read

Compose = Callable[..., dict[str, Any]]
Begin = Callable[..., RunFolder]


@pytest.fixture
def begin(compose: Compose, tmp_path: Path) -> Begin:
    """`begin("optimizer=adamw")`: a folder for a run on the tiny model."""

    def folder_of(*overrides: str, at: str = "run") -> RunFolder:
        folder = RunFolder(tmp_path / at)
        choices = {"task": "t", "model": "tiny", "tuning": "full", "optimizer": "o"}
        meta = {"id": "0" * 8, "name": at, "suite": "s", "seed": 0, "choices": choices}
        folder.begin(compose(*SMALL, f"runs_root={tmp_path}", *overrides), meta)
        return folder

    return folder_of


@pytest.fixture
def spoiled(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """`spoiled(3)`: of every third batch, by its tokens, the loss is NaN until the test ends."""
    monkeypatch.setattr(CountedLoss, "part", part)
    return spoil


@pytest.mark.parametrize("optimizer", ["conmezo", "mezo_adam", "adamw"])
def test_steps_that_are_skipped_are_counted_and_the_others_taken(
    begin: Begin, spoiled: Callable[[int], None], optimizer: str
) -> None:
    """The run is done and says how many; its training losses are those of the other steps."""
    spoiled(3)
    folder = begin(f"optimizer={optimizer}", "train.nonfinite=skip")
    result = run(folder)
    assert result["status"] == "done" and result["steps"] == 14
    assert 0 < result["skipped_steps"] < 14
    rows = [row for row in rows_of(folder) if "train/loss" in row]
    assert rows[-1]["train/skipped"] == result["skipped_steps"]
    assert all(math.isfinite(row["train/loss"]) for row in rows)
    if optimizer != "adamw":
        skipped = [record.skipped for record in read(folder.ledger)]
        assert len(skipped) == 14 and sum(skipped) == result["skipped_steps"]
        verification = Verification(folder)
        verification.run()
        assert verification.found == []


@pytest.mark.parametrize("policy", ["stop", "null"])
def test_without_skipping_the_first_bad_step_ends_the_run(
    begin: Begin, spoiled: Callable[[int], None], policy: str
) -> None:
    """It is diverged, has its reason and a test score, and counts no skipped steps."""
    spoiled(3)
    result = run(begin("optimizer=mezo", f"train.nonfinite={policy}"))
    assert result["status"] == "diverged" and "the loss is nan" in result["reason"]
    assert result["steps"] < 14 and result["test"] and "skipped_steps" not in result


@pytest.mark.parametrize("optimizer", ["mezo", "adamw"])
def test_too_many_skips_in_a_row_end_the_run(
    begin: Begin, spoiled: Callable[[int], None], optimizer: str
) -> None:
    """Where no loss is finite any more, waiting does not help."""
    spoiled(1)
    folder = begin(f"optimizer={optimizer}", "train.nonfinite=skip", "budget.steps=30")
    result = run(folder)
    assert result["status"] == "diverged"
    assert f"{MOST_IN_A_ROW} skipped steps in a row" in result["reason"]
    assert result["steps"] == result["skipped_steps"] == MOST_IN_A_ROW


def test_a_gradient_that_is_not_finite_is_skipped_too(
    begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The square root's slope at 0 is infinite although the loss is not; the weights stay."""

    def steep(self: CountedLoss, batch: Any) -> Any:
        value = part(self, batch)
        return value + (value - value.detach()).clamp(min=0).sqrt() if batch.tokens % 3 else value

    monkeypatch.setattr(CountedLoss, "part", steep)
    result = run(begin("optimizer=adamw", "train.nonfinite=skip"))
    assert result["status"] == "done" and 0 < result["skipped_steps"] < 14


def test_a_captured_step_cannot_be_skipped(begin: Begin) -> None:
    """It says which setting to change, before any file of results."""
    folder = begin("optimizer=mezo", "optimizer.graph=true", "train.nonfinite=skip")
    with pytest.raises(ValueError, match=r"train\.nonfinite=skip.*optimizer\.graph=false"):
        run(folder)
    assert not folder.ledger.exists()


@pytest.mark.faults
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux runs are forked")
@pytest.mark.parametrize("optimizer", ["conmezo", "agzo", "adamw"])
def test_killed_between_skips_it_ends_with_the_same_bits(
    server: ForkServer, compose: Compose, tmp_path: Path, optimizer: str
) -> None:
    """Skips are replayed from the ledger, or taken again after a checkpoint."""
    attempts = Attempts(server, compose, tmp_path, f"optimizer={optimizer}", "train.nonfinite=skip")
    attempts.killer = "tests.run.spoiled.Spoiled"
    attempts.settings["logger"] = {"_target_": attempts.killer}
    attempts.count()
    assert 0 < read_json(attempts.folder("whole").result)["skipped_steps"] < 14
    attempts.survive(random.Random(optimizer).sample(range(attempts.instants), 3))


def still(optimizer: str) -> list[str]:
    """What makes a step at rate 0 leave every bit where it was."""
    return [] if optimizer == "adamw" else ["arithmetic=stochastic"]


def test_patience_counts_evaluations_without_a_lower_loss() -> None:
    """Equal, higher and missing losses are not better; a lower one resets the count."""
    patience = Patience(3)
    for loss, since in ((2.0, 0), (2.0, 1), (math.nan, 2), (1.5, 0), (1.7, 1), (1.6, 2)):
        patience.evaluated(loss)
        assert patience.since == since and not patience.over
    patience.evaluated(1.5)
    assert patience.over and patience.result() == {"stopped_early": True}
    assert not Patience(None).over and Patience(None).result() == {}


@pytest.mark.parametrize("select", ["null", "last"])
@pytest.mark.parametrize("optimizer", ["mezo", "adamw"])
def test_a_run_out_of_patience_is_done_and_costs_what_it_used(
    begin: Begin, optimizer: str, select: str
) -> None:
    """Nothing moves at lr 0, so that no evaluation is better: it ends at the second after 0."""
    overrides = [f"optimizer={optimizer}", "optimizer.lr=0", f"train.select={select}"]
    folder = begin(*overrides, *still(optimizer), "train.patience=2", "train.eval_every=3")
    result = run(folder)
    assert (result["status"], result["reason"], result["stopped_early"]) == ("done", None, True)
    assert result["steps"] == 6 and result["best_step"] == (6 if select == "last" else 0)
    assert result["cost"]["forwards"] == 6 * (2 if optimizer == "mezo" else 1)
    assert [row["step"] for row in rows_of(folder) if "dev/loss" in row] == [0, 3, 6]


def test_a_run_that_gets_better_goes_its_way(begin: Begin) -> None:
    """Where each evaluation is better than the last, patience changes no number."""
    numbers = []
    for at, more in (("plain", []), ("patient", ["train.patience=1"])):
        folder = begin("optimizer=adamw", "optimizer.lr=1e-4", *more, at=at)
        result = run(folder)
        numbers.append((rows_of(folder), result["dev"], result["test"], result["steps"]))
    assert result["stopped_early"] is False
    assert numbers[0] == numbers[1]


@pytest.mark.faults
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux runs are forked")
@pytest.mark.parametrize("optimizer", ["loren", "adamw"])
def test_patience_survives_a_kill(
    server: ForkServer, compose: Compose, tmp_path: Path, optimizer: str
) -> None:
    """Early stopped or not, the bits are those of the run left alone."""
    patient = ("train.patience=2", "train.eval_every=3")
    options = (f"optimizer={optimizer}", "optimizer.lr=0", *patient, *still(optimizer))
    attempts = Attempts(server, compose, tmp_path, *options)
    attempts.count()
    assert read_json(attempts.folder("whole").result)["steps"] == 6
    attempts.survive(random.Random(optimizer).sample(range(attempts.instants), 3))


def test_members_of_a_pack_skip_and_stop_by_themselves(
    begin: Begin, spoiled: Callable[[int], None], capfd: pytest.CaptureFixture[str]
) -> None:
    """Side by side as alone: one run's bad batches and patience are no other's."""
    spoiled(5)
    found = {}
    for kind in ("alone", "together"):
        options = ("tuning=lora", "train.nonfinite=skip", "train.patience=2", "train.eval_every=3")
        rates = (0.0, 1e-2)
        folders = [
            begin("optimizer=mezo", *options, f"optimizer.lr={lr}", f"seed={n}", at=f"{kind}{n}")
            for n, lr in enumerate(rates)
        ]
        results = run_together(folders) if kind == "together" else [run(f) for f in folders]
        found[kind] = [(r["steps"], r["skipped_steps"], r["stopped_early"]) for r in results]
    capfd.readouterr()
    assert found["alone"] == found["together"]
    assert found["alone"][0][0] == 6 and sum(n for _, n, _ in found["alone"]) > 0


def test_a_training_loss_that_has_run_away_ends_the_run(begin: Begin) -> None:
    """A rate far too high: diverged, with the reason, and tested with the best weights before."""
    overrides = ("optimizer=adamw", "optimizer.lr=3", "train.diverged_above=1.5")
    folder = begin(*overrides)
    result = run(folder)
    assert result["status"] == "diverged" and "train.diverged_above=1.5" in result["reason"]
    assert result["steps"] < 14 and result["best_step"] == 0 and result["test"]
    result = run(begin("optimizer=adamw", "optimizer.lr=3", at="unguarded"))
    assert result["steps"] == 14


@pytest.mark.parametrize(
    ("first", "loss", "over"),
    [(2.0, 5.9, False), (2.0, 6.1, True), (-1.0, 0.9, False), (-1.0, 1.1, True), (0.0, 9.0, False)],
)
def test_what_counts_as_run_away(tmp_path: Path, first: float, loss: float, over: bool) -> None:
    """Three times the first line's loss; two of its sizes above a negative one."""
    logger: Any = NoLogger()
    with MetricsLog(tmp_path / "metrics.jsonl", logger) as metrics_log:
        for step, value in enumerate((first, 100.0)):
            metrics_log.write(step, {"train/loss": value})
        check_rise(loss, None, metrics_log)
        if over:
            with pytest.raises(Diverged, match=r"train\.diverged_above=3 times"):
                check_rise(loss, 3.0, metrics_log)
        else:
            check_rise(loss, 3.0, metrics_log)
