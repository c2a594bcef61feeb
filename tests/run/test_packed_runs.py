"""Whole runs that evaluate several points as one batch."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from zobench.build import try_optimizer
from zobench.errors import UserError
from zobench.run.folder import RunFolder
from zobench.run.runner import run
from zobench.zo.ledger import read

Compose = Callable[..., dict[str, Any]]
SIZES = ("task.sizes.train=32", "task.sizes.dev=16", "task.sizes.test=16", "budget.steps=4")
OPTIONS = ("tuning=lora", "logger=none", "threads=1", "optimizer.lr=1e-3", *SIZES)


def begun(settings: dict[str, Any], folder: Path) -> RunFolder:
    made = RunFolder(folder)
    choices = {"task": "t", "model": "tiny", "tuning": "lora", "optimizer": "mezo"}
    made.begin(settings, {"id": "0" * 8, "name": "n", "suite": "s", "seed": 0, "choices": choices})
    return made


@pytest.mark.parametrize(
    "more", [("optimizer=ldsd_sgd",), ("train.micro_batch_size=5",), ("train.precision=bfloat16",)]
)
def test_a_packed_run_costs_and_finds_what_the_sequential_one_does(
    more: tuple[str, ...], compose: Compose, tmp_path: Path
) -> None:
    """Forwards, tokens and ledger have the same numbers; losses and scores are near each other."""
    found, losses = [], []
    for pack in ("null", "2"):
        settings = compose(*OPTIONS, *more, f"optimizer.pack={pack}")
        folder = begun(settings, tmp_path / pack)
        found.append(run(folder))
        losses.append([loss for record in read(folder.ledger) for loss in record.losses])
    one, packed = found
    assert one["status"] == packed["status"] == "done"
    assert packed["cost"] == one["cost"] and one["cost"]["tokens"] > one["cost"]["forwards"] > 0
    rounding = 2e-2 if "bfloat16" in more[0] else 1e-4
    assert len(losses[0]) == one["cost"]["forwards"]
    assert losses[1] == pytest.approx(losses[0], rel=rounding)
    assert packed["final"]["loss"] == pytest.approx(one["final"]["loss"], rel=rounding)


def test_a_loss_that_counts_right_answers_is_not_packed(compose: Compose, tmp_path: Path) -> None:
    """The run says so before anything is written."""
    settings = compose(*OPTIONS, "task.loss=accuracy", "optimizer.pack=2")
    folder = begun(settings, tmp_path / "run")
    with pytest.raises(UserError, match="pack=2: this task's loss judges answers"):
        run(folder)
    assert not folder.metrics.exists()


def test_a_pack_that_no_run_could_use_is_refused_when_composed(compose: Compose) -> None:
    """Before a run begins; a pack that some run can use passes."""
    try_optimizer(compose("optimizer.pack=3")["optimizer"])
    with pytest.raises(UserError, match="optimizer: pack=0: must be at least 1"):
        try_optimizer(compose("optimizer.pack=0")["optimizer"])
    with pytest.raises(UserError, match="optimizer: pack=2: sampler ActivationBasis watches"):
        try_optimizer(compose("optimizer=agzo", "optimizer.pack=2")["optimizer"])
