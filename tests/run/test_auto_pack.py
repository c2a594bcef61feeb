"""`optimizer.pack=auto`: the choice, the reasons against it, and that it lasts for the run."""

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.recorder import capturing
from zobench.build import try_optimizer
from zobench.errors import UserError
from zobench.registry.entry import packed
from zobench.registry.replaying import train_again
from zobench.run import auto_pack
from zobench.run.auto_pack import choose
from zobench.run.folder import PACK, RunFolder, read_json
from zobench.run.meter import Meter
from zobench.run.runner import _optimizer, prepare_run, run
from zobench.run.steps import Steps
from zobench.settings import RunSettings, identity
from zobench.tasks.choice_problem import ChoiceProblem
from zobench.zo.batched_points import BatchedPoints

Compose = Callable[..., dict[str, Any]]
CPU = torch.device("cpu")
SMALL = (
    *("task.sizes.train=32", "task.sizes.dev=8", "task.sizes.test=8", "train.batch_size=4"),
    *("logger=none", "threads=1", "optimizer.lr=1e-3", "budget.steps=4"),
)
EGGROLL = ("optimizer=eggroll", "estimator.population=4")
LORA = ("tuning=lora", "estimator.queries=3")  # six points
AUTO, ONE = "optimizer.pack=auto", "optimizer.pack=null"


def plant(patch: pytest.MonkeyPatch, *, packed_is_faster: bool) -> None:
    """A clock by which one of the two ways is faster; one by one is timed first."""
    seconds = itertools.cycle([3.0, 2.0] if packed_is_faster else [2.0, 3.0])

    def planted(once: Callable[[], object], device: torch.device) -> float:
        del device
        once()
        return next(seconds)

    patch.setattr(auto_pack, "seconds_of", planted)


def no_clock(patch: pytest.MonkeyPatch) -> None:
    def measured(*_: object) -> float:
        raise AssertionError("the choice was made again")

    patch.setattr(auto_pack, "seconds_of", measured)


def begun(settings: dict[str, Any], path: Path) -> RunFolder:
    choices = {"task": "t", "model": "tiny", "tuning": "t", "optimizer": "o"}
    made = RunFolder(path)
    made.begin(settings, {"id": "0" * 8, "name": "n", "suite": "s", "seed": 0, "choices": choices})
    return made


def bits(folder: RunFolder) -> tuple[bytes, bytes]:
    return folder.ledger.read_bytes(), folder.weights.read_bytes()


@pytest.mark.parametrize(("row", "points"), [(EGGROLL, 4), (LORA, 6)])
@pytest.mark.parametrize("faster", [True, False])
def test_the_run_is_that_of_the_number_chosen(
    row: tuple[str, ...],
    points: int,
    faster: bool,
    compose: Compose,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """To the bit; the forwards of the choice are in its note and in no budget."""
    plant(monkeypatch, packed_is_faster=faster)
    auto = begun(compose(*SMALL, *row, AUTO), tmp_path / "auto")
    result = run(auto)
    given = f"optimizer.pack={points}" if faster else ONE
    named = begun(compose(*SMALL, *row, given), tmp_path / "named")
    assert run(named)["cost"] == result["cost"]
    assert bits(auto) == bits(named)
    chosen = read_json(auto.meta)[PACK]
    spent = 2 * (1 + auto_pack.ROUNDS) * points
    assert chosen["points"] == (points if faster else 1) and chosen["forwards"] == spent
    said = (
        f"pack=auto: {points} points in one call, 1.5 times as fast as one by one"
        if faster
        else f"pack=auto: one by one: {points} points in one call are 0.67 times as fast"
    )
    assert f"{said}; measured by {spent} forwards that train nothing\n" in capfd.readouterr().out


def test_the_choice_lasts(
    compose: Compose,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    command: Callable[..., tuple[int, str, str]],
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Killed, resumed, verified and trained again: with the number chosen first."""
    plant(monkeypatch, packed_is_faster=True)
    settings = compose(*SMALL, *EGGROLL, AUTO, f"runs_root={tmp_path}")
    whole = begun(settings, tmp_path / "whole")
    run(whole)
    prepare = Steps.prepare

    def failing(steps: Steps, step: int) -> None:
        if step == 2:
            raise ConnectionError
        prepare(steps, step)

    cut = begun(settings, tmp_path / "cut")
    with monkeypatch.context() as patch:
        patch.setattr(Steps, "prepare", failing)
        with pytest.raises(ConnectionError):
            run(cut)
    no_clock(monkeypatch)
    run(begun(settings, tmp_path / "cut"))
    assert bits(cut) == bits(whole)
    capfd.readouterr()
    status, out, err = command("verify", str(cut.path))
    assert (status, err) == (0, "") and "(4 steps replayed)" in out
    assert train_again(cut) == ("trained again to the same bits", [])
    assert PACK in json.loads(packed(cut)["meta.json"])
    plant(monkeypatch, packed_is_faster=False)
    other = begun(compose(*SMALL, *EGGROLL, AUTO, "seed=1"), tmp_path / "cut")
    run(other)
    assert read_json(other.meta)[PACK]["points"] == 1  # of a run with other settings


def chosen(
    settings: dict[str, Any], ranks: int = 1, capture: bool | None = None
) -> auto_pack.Choice:
    """The choice of a run that has not begun; weights and torch's generator are as before."""
    own = RunSettings.of(settings)
    made = prepare_run(own, CPU)._replace(capture=capture)
    optimizer_of = lambda given: _optimizer(given, made, None)  # noqa: E731
    before, state = [p.clone() for p in made.model.parameters()], torch.get_rng_state()
    choice = choose(own, made.model, made.problem, optimizer_of, Meter(CPU), ranks)
    pairs = zip(before, made.model.parameters(), strict=True)
    assert all(torch.equal(then, now) for then, now in pairs)
    assert torch.equal(torch.get_rng_state(), state)
    return choice


@pytest.mark.parametrize(
    ("row", "why"),
    [
        (("optimizer=agzo",), "sampler ActivationBasis watches the activations"),
        (("tuning=lora", "task.loss=accuracy"), "this task's loss judges answers"),
    ],
)
def test_why_points_cannot_be_packed(row: tuple[str, ...], why: str, compose: Compose) -> None:
    """In the same line, without advice for a setting that was not given, and without a forward."""
    choice = chosen(compose(*SMALL, *row, AUTO))
    assert choice.points == 1 and choice.forwards == 0
    assert choice.note.startswith(f"pack=auto: one by one: cannot be packed because {why}")
    assert "set " not in choice.note


def test_a_loss_that_reads_its_value_is_not_packed(
    compose: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    """vmap does not know it; that is found out by a step, from which the weights come back."""
    plain = ChoiceProblem.loss

    def reading(self: ChoiceProblem, model: Any, batch: Any) -> torch.Tensor:
        loss = plain(self, model, batch)
        return loss + 0 * float(loss.detach())

    monkeypatch.setattr(ChoiceProblem, "loss", reading)
    choice = chosen(compose(*SMALL, *LORA, AUTO))
    assert choice.points == 1 and choice.forwards > 0
    assert "because this loss cannot be evaluated for several points at once" in choice.note


def test_points_that_are_evaluated_one_after_another_are_not_packed(compose: Compose) -> None:
    """A step has but one, or each depends on the losses before it."""
    choice = chosen(compose(*SMALL, "optimizer=forward_gradient", AUTO))
    assert choice.points == 1
    assert "because no two points of a step can be evaluated together; " in choice.note


def test_ranks_keep_one_point(compose: Compose) -> None:
    """Nothing is measured there."""
    assert "several ranks share the run" in chosen(compose(*SMALL, *LORA, AUTO), ranks=2).note


@pytest.mark.parametrize("faster", [True, False])
def test_one_by_one_is_timed_with_captured_forwards(
    faster: bool, compose: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the run would capture them; the points of a call are not captured."""
    plant(monkeypatch, packed_is_faster=faster)
    with capturing() as recorder:
        choice = chosen(compose(*SMALL, *LORA, AUTO))
    assert choice.points == (6 if faster else 1)
    assert recorder.recorded == 1 and recorder.replayed == 6 * (1 + auto_pack.ROUNDS)
    with capturing():
        choice = chosen(compose(*SMALL, *LORA, AUTO), capture=True)
    assert (
        choice.points == 1 and "because model.capture=true: optimizer.pack evaluates" in choice.note
    )


def test_half_of_the_points_where_memory_does_not_suffice(
    compose: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Copies that would outweigh the model, or a device that is full."""
    plant(monkeypatch, packed_is_faster=True)
    losses = BatchedPoints.losses

    def full(self: BatchedPoints, loss: Any, sampler: Any, points: Any) -> list[float]:
        if len(points) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return losses(self, loss, sampler, points)

    with monkeypatch.context() as patch:
        patch.setattr(BatchedPoints, "losses", full)
        assert chosen(compose(*SMALL, *LORA, AUTO)).points == 3
    monkeypatch.setattr("zobench.zo.batched_points.SMALL", 0)
    settings = compose(*SMALL, "estimator.queries=4", AUTO)  # all weights: no two copies
    assert "2 copies of the trained weights" in chosen(settings).note


def test_a_first_loss_that_is_not_finite_leaves_the_error_to_the_run(
    compose: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The choice itself stops nothing."""
    nan = lambda self, model, batch: torch.tensor(torch.nan)  # noqa: E731, ARG005
    monkeypatch.setattr(ChoiceProblem, "loss", nan)
    assert chosen(compose(*SMALL, *LORA, AUTO)).points == 1


def test_auto_is_a_setting_of_runs(compose: Compose) -> None:
    """With an id of its own; an optimizer takes numbers, and runs side by side do, too."""
    settings = {pack: compose(*SMALL, *LORA, f"optimizer.pack={pack}") for pack in ("auto", "6")}
    settings["null"] = compose(*SMALL, *LORA)
    assert len({identity(plain) for plain in settings.values()}) == 3
    with pytest.raises(UserError, match="pack=auto: give a number, or null"):
        try_optimizer(settings["auto"]["optimizer"])
    with pytest.raises(UserError, match=r"pack_runs=2: optimizer\.pack=auto is measured"):
        RunSettings.of(settings["auto"] | {"pack_runs": 2})
