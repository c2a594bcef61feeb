"""Several points in one call of the closure: the same losses, and weights that never move."""

import copy
import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.small_models import MASKED, small_model
from zobench.build import build
from zobench.interface import Interface
from zobench.models.loaded import LoadedModel
from zobench.schema import composed
from zobench.zo import batched_points
from zobench.zo.batched_points import stacked
from zobench.zo.engine import Diverged
from zobench.zo.estimators.base import Estimator
from zobench.zo.estimators.best_of_k import BestOfK
from zobench.zo.estimators.forward_gradient import ForwardGradient
from zobench.zo.estimators.fzoo import FZOO
from zobench.zo.estimators.kalman import Kalman
from zobench.zo.estimators.one_sided import OneSided
from zobench.zo.estimators.rank_contrast import RankContrast
from zobench.zo.estimators.rloo import RLOO
from zobench.zo.estimators.svrg import SVRG
from zobench.zo.estimators.three_point import ThreePoint
from zobench.zo.estimators.two_sided import TwoSided
from zobench.zo.feedback import Key, Request
from zobench.zo.ledger import Record
from zobench.zo.optimizer import ZOOptimizer
from zobench.zo.plan import Plan
from zobench.zo.rounding import NEAREST
from zobench.zo.rules.adam import Adam
from zobench.zo.rules.sgd import SGD
from zobench.zo.samplers.activation_basis import ActivationBasis
from zobench.zo.samplers.base import Sampler
from zobench.zo.samplers.cone import Cone
from zobench.zo.samplers.gaussian import Gaussian
from zobench.zo.samplers.learned_mean import LearnedMean

SMALL_TUNINGS = ["lora", "prefix", "prompt", "head", "bitfit"]
EVERY = [TwoSided, OneSided, RLOO, BestOfK, FZOO, ThreePoint, RankContrast, Kalman]
CPU = torch.device("cpu")
Losses = Callable[[], Any]


@functools.cache
def settings(tuning: str) -> dict[str, Any]:
    """Random tokens for a small model that is tuned this way."""
    return composed("task=random_tokens", "task.length=12", f"tuning={tuning}")


def tuned(kind: str, tuning: str) -> tuple[Any, Losses, nn.Module]:
    """A small model, the loss of a batch of it, and what is tuned, moved off its first values."""
    model = build(settings(tuning)["tuning"])(small_model(kind)).eval()
    interface = Interface.MASKED if kind in MASKED else Interface.CAUSAL
    problem = build(settings(tuning)["task"]).prepare(LoadedModel(model, None, interface), CPU)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:  # LoRA's B begins at zero, where a pair is one point
                parameter.add_(0.02 * torch.randn(parameter.shape, generator=generator))
    batch = problem.batch([0, 1, 2])
    return model, lambda: problem.loss(model, batch), model


def optimizer_of(net: nn.Module, pack: int | None, estimator: Estimator, **more: Any) -> Any:
    parts: dict[str, Any] = {"sampler": Gaussian(), "rule": SGD(), "lr": 1e-2, "eps": 1e-2}
    parts |= {"model": net} | more
    return ZOOptimizer(net.named_parameters(), estimator=estimator, pack=pack, **parts)


def weights(model: nn.Module) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in model.parameters()]


class Net(nn.Module):
    """A layer twice, under two names, with a norm in between; `loss` is some number of it."""

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self.first = nn.Linear(6, 6)
        self.norm = nn.LayerNorm(6)
        self.last = nn.Linear(6, 6)
        for parameter in self.parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator).to(dtype)
        self.last.weight = self.first.weight
        self.x = torch.randn(5, 6, generator=generator).to(dtype)
        self.calls = 0

    def loss(self) -> Tensor:
        self.calls += 1
        out: Tensor = self.last(torch.tanh(self.norm(self.first(self.x))))
        return out.float().square().mean()


@pytest.mark.parametrize("make", [TwoSided, RLOO, BestOfK])
@pytest.mark.parametrize("tuning", SMALL_TUNINGS)
@pytest.mark.parametrize("kind", ["opt", "bert"])
def test_packed_losses_are_the_sequential_ones_to_rounding(
    kind: str, tuning: str, make: type[Estimator]
) -> None:
    """For every small tuning, and the step that follows from them moves the weights alike."""
    found = []
    for pack in (None, 4):
        model, loss, module = tuned(kind, tuning)
        optimizer = optimizer_of(module, pack, make(), eps=0.1)
        optimizer.step(loss)
        found.append((optimizer.engine.losses, optimizer.engine.forwards, weights(model)))
    (one, count, ends), (packed, packed_count, packed_ends) = found
    assert count == packed_count == len(one)
    assert packed == pytest.approx(one, abs=2e-6)
    assert max(one) - min(one) > 1e-5
    for end, packed_end in zip(ends, packed_ends, strict=True):
        torch.testing.assert_close(packed_end, end, rtol=0.0, atol=2e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_copy_is_where_the_walk_goes_from_clean_weights(dtype: torch.dtype) -> None:
    """Bit for bit, 16-bit storage included; each point has its own scales and keys."""
    net = Net(dtype)
    optimizer = optimizer_of(net, None, TwoSided())
    engine, keys = optimizer.engine, [Key(0, 0, k) for k in range(2)]
    points = [{keys[0]: 0.1}, {}, {keys[1]: -0.2, keys[0]: 0.3}]
    engine.sampler.begin_step(0)
    copies = [stacked(slot, engine.sampler, points) for slot in engine.slots]
    clean = copy.deepcopy(net)
    for number, point in enumerate(points):
        net.load_state_dict(clean.state_dict())
        for slot in engine.slots:
            slot.rounding = NEAREST
        with Plan(engine.slots, engine.sampler).evaluating(Request(point)):
            pass  # the weights stay there
        for slot, stack in zip(engine.slots, copies, strict=True):
            assert stack is not None and torch.equal(stack[number], slot.parameter)


@pytest.mark.parametrize("make", EVERY)
def test_evaluation_leaves_every_bit_of_the_weights_alone(make: type[Estimator]) -> None:
    """Tied weights move together; within a step and at a learning rate of 0 nothing else does."""
    net = Net()
    before = weights(net)
    optimizer = optimizer_of(net, 3, make(), lr=0.0)
    optimizer.step(net.loss)
    assert all(torch.equal(a, b) for a, b in zip(weights(net), before, strict=True))
    assert net.calls < optimizer.engine.forwards == make().forwards


@pytest.mark.parametrize(("pack", "calls"), [(1, 6), (2, 3), (4, 2), (6, 1), (99, 1)])
def test_no_call_evaluates_more_points_than_it_may(pack: int, calls: int) -> None:
    """Six candidates go in groups; each counts as one forward whatever the groups are."""
    net, together = Net(), []

    def loss() -> Tensor:
        together.append(optimizer.engine.at_once)
        return net.loss()

    optimizer = optimizer_of(net, pack, RLOO(queries=6))
    optimizer.step(loss)
    assert len(together) == calls and max(together) <= pack
    assert sum(together) == optimizer.engine.forwards == len(optimizer.record.losses) == 6


@pytest.mark.parametrize(
    ("sampler", "estimator", "rule"),
    [
        (Gaussian, lambda: TwoSided(queries=2), Adam),
        (lambda: Cone(steps=40), TwoSided, SGD),
        (lambda: LearnedMean(gamma_mu=1e-2), BestOfK, SGD),
        (Gaussian, lambda: SVRG(every=3, anchor_batches=2, anchor_factor=1), SGD),
        (Gaussian, ForwardGradient, SGD),
    ],
)
def test_a_packed_run_is_the_sequential_one_and_its_ledger_replays_it(
    sampler: Callable[[], Sampler], estimator: Callable[[], Estimator], rule: Callable[[], Any]
) -> None:
    """Ten steps end near each other; the records alone give the packed weights bit for bit."""
    ends: list[list[Tensor]] = []
    records: list[Record] = []
    for pack in (None, 2):
        net = Net()
        optimizer = optimizer_of(net, pack, estimator(), sampler=sampler(), rule=rule(), eps=1e-3)
        records = []
        for _ in range(10):
            optimizer.step(net.loss, lambda n, net=net: net.loss() * (1 + n))
            records.append(optimizer.record)
        ends.append(weights(net))
    start = weights(Net())
    for one, packed, first in zip(*ends, start, strict=True):
        torch.testing.assert_close(packed, one, rtol=0.0, atol=1e-3 + 0.02 * (one - first).norm())
    again = Net()
    replayed = optimizer_of(again, 2, estimator(), sampler=sampler(), rule=rule(), eps=1e-3)
    for record in records:
        replayed.replay(record)
    assert again.calls == 0
    assert all(torch.equal(a, b) for a, b in zip(weights(again), ends[1], strict=True))


def test_a_loss_that_is_not_finite_ends_the_step_with_clean_weights() -> None:
    """All points of the call were paid for; no bit of the weights has changed."""
    net = Net()
    before = weights(net)
    optimizer = optimizer_of(net, 2, TwoSided())
    with pytest.raises(Diverged, match="the loss is nan at step 0"):
        optimizer.step(lambda: net.loss() * torch.nan)
    assert optimizer.engine.forwards == 2
    assert all(torch.equal(a, b) for a, b in zip(weights(net), before, strict=True))


def test_what_cannot_be_packed_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    """One sentence each: no model, another's weights, too many copies, watching, odd closures."""
    net = Net()

    def refuses(match: str, pack: int = 2, estimator: Estimator | None = None, **more: Any) -> None:
        with pytest.raises(ValueError, match=match):
            optimizer_of(net, pack, estimator or TwoSided(), **more)

    refuses("pack=0: must be at least 1", pack=0)
    refuses("pack=2 needs model=", model=None)
    refuses("first.weight is not a parameter of the model", model=Net())
    refuses(
        "sampler ActivationBasis watches the activations",
        sampler=ActivationBasis(),
        estimator=OneSided(),
    )
    monkeypatch.setattr(batched_points, "SMALL", 0)
    refuses("pack=2: 2 copies of the trained weights .* would outweigh the model")
    monkeypatch.undo()
    optimizer = optimizer_of(net, 2, TwoSided())
    with pytest.raises(ValueError, match="pack=2 needs a closure that returns a scalar tensor"):
        optimizer.step(lambda: 1.0)
    with pytest.raises(ValueError, match="cannot be evaluated for several points at once; set"):
        optimizer.step(lambda: torch.tensor(net.loss().item()))
