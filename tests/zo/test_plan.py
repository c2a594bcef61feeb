"""Plans for all slots at once: the bits of plans slot by slot, without asking every slot."""

import copy
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from zobench.bench.overhead import optimizer_over
from zobench.paths import PACKAGE_DIR
from zobench.zo.arithmetic import Arithmetic
from zobench.zo.directions import Drawn
from zobench.zo.estimators.base import Estimator
from zobench.zo.estimators.best_of_k import BestOfK
from zobench.zo.estimators.rloo import RLOO
from zobench.zo.estimators.two_sided import TwoSided
from zobench.zo.feedback import Channels, Key
from zobench.zo.moves import Recipe
from zobench.zo.optimizer import ZOOptimizer
from zobench.zo.part import PartError
from zobench.zo.plan import Plan
from zobench.zo.rules.adam import Adam
from zobench.zo.rules.base import Rule
from zobench.zo.rules.momentum import Momentum
from zobench.zo.rules.sgd import SGD
from zobench.zo.samplers.base import Sampler
from zobench.zo.samplers.cone import Cone
from zobench.zo.samplers.gaussian import Gaussian
from zobench.zo.samplers.learned_mean import LearnedMean
from zobench.zo.samplers.rademacher import Rademacher
from zobench.zo.samplers.rank_one_curvature import RankOneCurvature
from zobench.zo.samplers.tensor_inclusion import TensorInclusion
from zobench.zo.samplers.tensor_subset import TensorSubset
from zobench.zo.slot_tables import Sums
from zobench.zo.space import Slot

Parts = tuple[Callable[[], Sampler], Callable[[], Estimator], Callable[[], Rule]]
METHODS: dict[str, Parts] = {
    "mezo": (Gaussian, TwoSided, lambda: SGD(weight_decay=0.1)),
    "three queries": (Gaussian, lambda: TwoSided(queries=3), SGD),
    "signs and momentum": (Rademacher, TwoSided, Momentum),
    "adam": (Gaussian, lambda: TwoSided(queries=2), Adam),
    "momentum of matrices": (Gaussian, RLOO, lambda: Momentum(vectors=False)),
    "momentum per query": (Gaussian, RLOO, lambda: Momentum(per_query=True)),
    "conmezo": (lambda: Cone(steps=20), TwoSided, SGD),
    "ldsd": (lambda: LearnedMean(gamma_mu=1e-2), BestOfK, Adam),
    "loren": (lambda: RankOneCurvature(eps=1e-3), RLOO, Momentum),
    "loren tiled": (lambda: RankOneCurvature(eps=1e-3, form="tiled"), RLOO, Momentum),
    "curvzo": (TensorInclusion, TwoSided, SGD),
}
each = pytest.mark.parametrize("name", METHODS)


def weights_of(dtype: torch.dtype = torch.float32) -> dict[str, nn.Parameter]:
    """Matrices and vectors of odd sizes, and a vector too long to be kept."""
    generator = torch.Generator().manual_seed(0)
    shapes = {"a": (37, 300), "b": (300,), "c": (5,), "d": (64, 3, 2), "e": ((1 << 20) + 5,)}
    made = {n: torch.randn(s, generator=generator) * 0.1 + 1.0 for n, s in shapes.items()}
    return {name: nn.Parameter(w.to(dtype)) for name, w in made.items()}


def optimizer_of(name: str, weights: dict[str, nn.Parameter]) -> ZOOptimizer:
    sampler, estimator, rule = METHODS[name]
    parts = {"sampler": sampler(), "estimator": estimator(), "rule": rule()}
    walk = Arithmetic(walk="inplace")
    return ZOOptimizer(weights.items(), lr=1e-3, eps=1e-2, seed=3, arithmetic=walk, **parts)  # type: ignore[arg-type]


def step(optimizer: ZOOptimizer, weights: dict[str, nn.Parameter]) -> float:
    return optimizer.step(lambda: sum(float(w.double().square().mean()) for w in weights.values()))


@contextmanager
def slot_by_slot() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Plan, "by_slot", True)
        yield


def all_bits(optimizer: ZOOptimizer) -> list[Tensor]:
    slots = optimizer.engine.slots
    return [t for s in slots for t in (s.flat, *s.buffers.values())]


@each
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_one_plan_for_all_slots_gives_the_bits_of_a_plan_for_each(
    name: str, dtype: torch.dtype
) -> None:
    """Weights, state and losses over three steps; in float64, which no fused pass knows, too."""
    ends = []
    for together in (True, False):
        weights = weights_of(dtype)
        optimizer = optimizer_of(name, weights)
        losses = []
        for _ in range(3):
            if together:
                losses.append(step(optimizer, weights))
            else:
                with slot_by_slot():
                    losses.append(step(optimizer, weights))
        ends.append((losses, all_bits(optimizer)))
    (ours, mine), (theirs, yours) = ends
    assert ours == theirs
    assert all(torch.equal(a, b) for a, b in zip(mine, yours, strict=True))


@each
def test_plans_do_not_outlive_what_they_point_to(name: str) -> None:
    """State loaded and weights put elsewhere between steps: as if nothing had been planned."""
    ends = []
    for forgetful in (False, True):
        weights = weights_of()
        optimizer = optimizer_of(name, weights)
        for number in range(6):
            if number == 2:
                optimizer.load_state_dict(optimizer.state_dict())
            if number == 4:
                for weight in weights.values():
                    weight.data = weight.data.clone()
            if forgetful:
                optimizer.engine.plan.forget()
            step(optimizer, weights)
        ends.append(all_bits(optimizer))
    assert all(torch.equal(a, b) for a, b in zip(*ends, strict=True))


def asked_in_a_step(name: str, tensors: int) -> int:
    """How often the second step asks the sampler for a direction."""
    weights = {f"{i}": nn.Parameter(torch.ones(3, 4 + i % 2)) for i in range(tensors)}
    weights |= {f"v{i}": nn.Parameter(torch.ones(7)) for i in range(tensors)}
    optimizer = optimizer_of(name, weights)
    step(optimizer, weights)
    asked = 0
    sampler: Any = optimizer.engine.sampler

    def counting(method: Callable[..., object]) -> Callable[..., object]:
        def counted(*given: object) -> object:
            nonlocal asked
            asked += 1
            return method(*given)

        return counted

    sampler.direction, sampler.recipe = counting(sampler.direction), counting(sampler.recipe)
    step(optimizer, weights)
    return asked


@pytest.mark.parametrize("name", ["mezo", "signs and momentum", "adam", "momentum of matrices"])
def test_a_step_asks_no_more_slots_of_a_large_model(name: str) -> None:
    """A step over 40 tensors asks for as many directions as one over 4."""
    assert asked_in_a_step(name, 20) == asked_in_a_step(name, 2)


class Growing(Gaussian):
    """A law that changes from step to step, where no law may."""

    steps = 0

    def recipe(self, slot: Slot) -> Recipe:
        del slot
        return Recipe(scale=1.0 + self.steps)

    def end_step(self) -> None:
        self.steps += 1


class Grown(Growing):
    """The same, where it may."""

    def begin_step(self, step: int) -> None:
        """The recipe reads what has changed."""


class Twofold(Gaussian):
    """Two laws in one."""

    def recipe(self, slot: Slot) -> Recipe:
        del slot
        return Recipe(scale=2.0)

    def direction(self, slot: Slot, key: Key) -> Drawn:
        return Drawn.normal(key, slot.id)


class Doubled(Gaussian):
    """Its directions are not its parent's."""

    def direction(self, slot: Slot, key: Key) -> Drawn:
        return Drawn.normal(key, slot.id, 2.0)


def trained(sampler: Sampler, *, by_slot: bool = False) -> dict[str, nn.Parameter]:
    weights = weights_of()
    parts: Any = {"sampler": sampler, "estimator": TwoSided(), "rule": SGD()}
    optimizer = ZOOptimizer(weights.items(), lr=1e-3, eps=1e-2, seed=3, **parts)
    optimizer.engine.plan.by_slot = by_slot
    for _ in range(3):
        step(optimizer, weights)
    return weights


def test_a_law_changes_in_begin_step_or_not_at_all() -> None:
    """What is planned for a run is looked at once a step."""
    with pytest.raises(ValueError, match=r"Growing: the law of z on a is not .* in begin_step"):
        trained(Growing())
    assert all(
        torch.equal(a, b)
        for a, b in zip(
            trained(Grown()).values(), trained(Grown(), by_slot=True).values(), strict=True
        )
    )


def test_a_direction_is_what_the_recipe_says() -> None:
    """Looked at in the first step."""
    with pytest.raises(ValueError, match="Twofold: its direction on a is not what its recipe says"):
        trained(Twofold())


@pytest.mark.parametrize("wrap", [lambda s: s, lambda s: TensorSubset(s, share=1.0)])
def test_the_nearer_class_decides(wrap: Callable[[Sampler], Sampler]) -> None:
    """A subclass that defines `direction` means it, also inside of another sampler."""

    class Scaled(Gaussian):
        def recipe(self, slot: Slot) -> Recipe:
            del slot
            return Recipe(scale=2.0)

    ends = [trained(wrap(sampler)) for sampler in (Doubled(), Scaled())]
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])
    assert not torch.equal(ends[0]["a"], trained(wrap(Gaussian()))["a"])


@pytest.mark.parametrize("rule", [SGD, Momentum, Adam])
@pytest.mark.parametrize("share", [0.2, 0.6])
def test_slots_that_take_no_part_move_as_the_rule_says(
    share: float, rule: Callable[[], Rule]
) -> None:
    """Momentum moves them, plain descent does not; the same bits as slot by slot."""
    ends = []
    for by_slot in (False, True):
        weights = weights_of()
        parts: Any = {"estimator": TwoSided(), "rule": rule()}
        sampler = TensorSubset(LearnedMean(gamma_mu=1e-2), share=share)
        parts |= {"sampler": sampler, "estimator": BestOfK()}
        optimizer = ZOOptimizer(weights.items(), lr=1e-3, eps=1e-2, seed=3, **parts)
        optimizer.engine.plan.by_slot = by_slot
        for _ in range(4):
            step(optimizer, weights)
        ends.append(all_bits(optimizer))
    assert len(ends[0]) == len(ends[1])
    assert all(torch.equal(a, b) for a, b in zip(*ends, strict=True))


class Thirsty(TwoSided):
    """Evaluates more than it says."""

    def __init__(self) -> None:
        super().__init__()
        self.forwards = 1


class Hoarder(Gaussian):
    """Keeps more than it says."""

    def observe(self, slots: Sequence[Slot], channels: Channels, sums: Sums | None) -> None:
        del channels, sums
        for slot in slots:
            slot.buffer("hoard")


def test_forwards_and_state_are_what_the_parts_declare() -> None:
    """Counted in the first step, of any part; one sentence says which."""
    weights = weights_of()
    for sampler, estimator, message in (
        (Gaussian(), Thirsty(), "Thirsty: its first step took 2 forwards, and it declares 1"),
        (Hoarder(), TwoSided(), r"a: its state \(hoard\) takes 44400 bytes, and .* declare 0"),
    ):
        parts: Any = {"sampler": sampler, "estimator": estimator, "rule": SGD()}
        optimizer = ZOOptimizer(weights.items(), lr=1e-3, eps=1e-2, **parts)
        with pytest.raises(PartError, match=message):
            step(optimizer, weights)


def test_a_law_learns_from_directions_that_the_update_does_not_use() -> None:
    """LOREN's scores are of all candidates, the estimate is of the best: together or apart."""
    ends = []
    for by_slot in (False, True):
        weights = {"a": nn.Parameter(torch.linspace(-1.0, 1.0, 300).view(20, 15))}
        parts: Any = {"sampler": RankOneCurvature(eps=1e-2, lr_cov=100.0), "estimator": BestOfK()}
        optimizer = ZOOptimizer(weights.items(), lr=1e-3, eps=1e-2, rule=SGD(), **parts)
        optimizer.engine.plan.by_slot = by_slot
        [slot] = optimizer.engine.slots
        before = slot.buffers["curvature"].clone()
        step(optimizer, weights)
        assert not torch.allclose(slot.buffers["curvature"], before, rtol=1e-3)
        ends.append(slot.buffers["curvature"])
    torch.testing.assert_close(*ends, rtol=1e-5, atol=1e-6)


@each
def test_state_that_was_loaded_is_no_change_of_the_law(name: str) -> None:
    """Into other tensors: the next steps have the bits of those without."""
    ends = []
    for loaded in (False, True):
        weights = weights_of()
        optimizer = optimizer_of(name, weights)
        step(optimizer, weights)
        if loaded:
            state = copy.deepcopy(optimizer.state_dict())
            for slot in optimizer.engine.slots:
                slot.buffers.clear()
            optimizer.load_state_dict(state)
        for _ in range(2):
            step(optimizer, weights)
        ends.append(all_bits(optimizer))
    assert all(torch.equal(a, b) for a, b in zip(*ends, strict=True))


def test_a_step_is_few_calls() -> None:
    """Of MeZO on four tensors, what docs/architecture.md says; comprehensions are not counted."""
    optimizer, loss = optimizer_over("mezo", 4), torch.tensor(1.0)
    calls: list[tuple[str, str]] = []

    def profile(frame: FrameType, event: str, _: object) -> None:
        code = frame.f_code
        ours = code.co_filename.startswith(f"{PACKAGE_DIR}{os.sep}")
        if event == "call" and ours and not code.co_name.startswith("<"):
            calls.append((code.co_filename, code.co_qualname))

    for _ in range(2):
        optimizer.step(lambda: loss)
    sys.setprofile(profile)
    try:
        optimizer.step(lambda: loss)
    finally:
        sys.setprofile(None)
    counts = len(calls), len({*calls}), len({file for file, _ in calls})
    assert all(0 < count <= most for count, most in zip(counts, (81, 43, 17), strict=True)), counts
