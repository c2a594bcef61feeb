"""Plans for all slots at once: the bits of plans slot by slot, without asking every slot."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor, nn

from zobench.zo.arithmetic import Arithmetic
from zobench.zo.directions import Dense
from zobench.zo.estimators.base import Estimator
from zobench.zo.estimators.best_of_k import BestOfK
from zobench.zo.estimators.rloo import RLOO
from zobench.zo.estimators.two_sided import TwoSided
from zobench.zo.feedback import Key
from zobench.zo.noise import Law, Stream, mix
from zobench.zo.optimizer import ZOOptimizer
from zobench.zo.planner import Planner
from zobench.zo.rules.adam import Adam
from zobench.zo.rules.base import Rule
from zobench.zo.rules.momentum import Momentum
from zobench.zo.rules.sgd import SGD
from zobench.zo.samplers.base import Sampler, Steady
from zobench.zo.samplers.cone import Cone
from zobench.zo.samplers.gaussian import Gaussian
from zobench.zo.samplers.learned_mean import LearnedMean
from zobench.zo.samplers.rademacher import Rademacher
from zobench.zo.samplers.rank_one_curvature import RankOneCurvature
from zobench.zo.samplers.tensor_inclusion import TensorInclusion
from zobench.zo.space import Slot

Parts = tuple[Callable[[], Sampler], Callable[[], Estimator], Callable[[], Rule]]
STEADY: dict[str, Parts] = {
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
each = pytest.mark.parametrize("name", STEADY)


def weights_of(dtype: torch.dtype = torch.float32) -> dict[str, nn.Parameter]:
    """Matrices and vectors of odd sizes, and a vector too long to be kept."""
    generator = torch.Generator().manual_seed(0)
    shapes = {"a": (37, 300), "b": (300,), "c": (5,), "d": (64, 3, 2), "e": ((1 << 20) + 5,)}
    made = {n: torch.randn(s, generator=generator) * 0.1 + 1.0 for n, s in shapes.items()}
    return {name: nn.Parameter(w.to(dtype)) for name, w in made.items()}


def optimizer_of(name: str, weights: dict[str, nn.Parameter]) -> ZOOptimizer:
    sampler, estimator, rule = STEADY[name]
    parts = {"sampler": sampler(), "estimator": estimator(), "rule": rule()}
    walk = Arithmetic(walk="inplace")
    return ZOOptimizer(weights.items(), lr=1e-3, eps=1e-2, seed=3, arithmetic=walk, **parts)  # type: ignore[arg-type]


def step(optimizer: ZOOptimizer, weights: dict[str, nn.Parameter]) -> float:
    return optimizer.step(lambda: sum(float(w.double().square().mean()) for w in weights.values()))


@contextmanager
def slot_by_slot() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Planner, "displace", lambda *_: False)
        patch.setattr(Planner, "update", lambda *_: False)
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
                optimizer.engine.planner.forget()
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
    sampler = optimizer.engine.sampler
    direction = sampler.direction

    def counted(slot: Slot, key: Key) -> object:
        nonlocal asked
        asked += 1
        return direction(slot, key)

    sampler.direction = counted  # type: ignore[method-assign, assignment]
    step(optimizer, weights)
    return asked


@pytest.mark.parametrize("name", ["mezo", "signs and momentum", "adam", "momentum of matrices"])
def test_a_step_asks_no_more_slots_of_a_large_model(name: str) -> None:
    """A step over 40 tensors asks for as many directions as one over 4."""
    assert asked_in_a_step(name, 20) == asked_in_a_step(name, 2)


def test_a_sampler_with_keys_of_its_own_is_not_steady() -> None:
    """Noise whose key is not the direction's would be drawn anew where it should not be."""

    class Stuck(Gaussian):
        def direction(self, slot: Slot, key: Key) -> Dense:
            del key
            return Dense(Stream(mix(0, 0, 0), slot.id), Law.NORMAL16)

    assert Stuck.steady is Steady.RUN
    weights = weights_of()
    parts = {"sampler": Stuck(), "estimator": TwoSided(), "rule": SGD()}
    optimizer = ZOOptimizer(weights.items(), lr=1e-3, eps=1e-2, seed=3, **parts)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"Stuck\.steady"):
        step(optimizer, weights)
