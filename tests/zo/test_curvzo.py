"""CurvZO: who takes part, that the estimate stays unbiased, and what the scores and budget do."""

from collections.abc import Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from zobench.zo.estimators.two_sided import TwoSided
from zobench.zo.feedback import Key
from zobench.zo.optimizer import ZOOptimizer
from zobench.zo.rules.sgd import SGD
from zobench.zo.samplers.base import Sampler
from zobench.zo.samplers.gaussian import Gaussian
from zobench.zo.samplers.inclusion import saturated, target_ratio, unsaturated
from zobench.zo.samplers.tensor_inclusion import TensorInclusion

CPU = torch.device("cpu")
SIZES = (4, 6, 2, 20, 9, 12, 3, 30, 8, 5, 13, 7)  # 12 tensors, d = 119
weights = st.lists(st.floats(1e-6, 1e3), min_size=1, max_size=40)


def optimizer_of(sampler: Sampler, sizes: Sequence[int] = SIZES, seed: int = 0) -> ZOOptimizer:
    parameters = [
        (f"b{i}", nn.Parameter(torch.ones(n, 1, dtype=torch.float64))) for i, n in enumerate(sizes)
    ]
    parts = {"estimator": TwoSided(), "rule": SGD()}
    return ZOOptimizer(parameters, lr=0.1, eps=1e-4, seed=seed, sampler=sampler, **parts)  # type: ignore[arg-type]


def values(optimizer: ZOOptimizer) -> list[Tensor]:
    return [slot.flat.clone() for slot in optimizer.engine.slots]


@given(weights=weights, share=st.floats(0.01, 1.0))
def test_inclusion_probabilities_keep_their_budget(weights: list[float], share: float) -> None:
    """Paper: sum pi = budget, pi in (0, 1], one factor below 1; released: min(B, 1 / max p)."""
    budget = share * len(weights)
    pi = saturated(weights, budget)
    assert sum(pi) == pytest.approx(budget) and all(0 < x <= 1 + 1e-12 for x in pi)
    free = [(x, w) for x, w in zip(pi, weights, strict=True) if x < 1 - 1e-9]
    assert all(x / w == pytest.approx(free[0][0] / free[0][1]) for x, w in free)
    pi = unsaturated(weights, budget)
    attained = min(budget, sum(weights) / max(weights))
    assert sum(pi) == pytest.approx(attained) and all(0 < x <= 1 + 1e-12 for x in pi)


@pytest.mark.parametrize(
    ("active", "value"),
    [(516, 0.590), (1, 0.311), (5, 0.261), (20, 0.228), (80, 0.239), (200, 0.322), (400, 0.488)],
)
def test_the_budget_map_has_the_specified_values(active: int, value: float) -> None:
    """Of 516 tensors, `active` share the whole score: the ratio that the budget moves towards."""
    scores = [1.0] * active + [1e-30] * (516 - active)
    assert target_ratio(scores, 0.1, 0.8, 0.7) == pytest.approx(value, abs=1e-3)


def test_tensors_that_are_not_drawn_keep_their_bits() -> None:
    """They are the same during both evaluations and after the step; the drawn ones all move."""
    sampler = TensorInclusion()
    optimizer = optimizer_of(sampler)
    for _ in range(5):
        before = values(optimizer)
        seen: list[list[Tensor]] = []

        def loss(seen: list[list[Tensor]] = seen) -> float:
            seen.append(values(optimizer))
            return sum(float(v.square().sum()) for v in seen[-1])

        optimizer.step(loss)
        for b, drawn in enumerate(sampler.drawn):
            states = [*(s[b] for s in seen), values(optimizer)[b]]
            assert all(torch.equal(before[b], state) is not drawn for state in states)
        assert any(sampler.drawn) and not all(sampler.drawn)


def test_everybody_every_time_is_mezo_bit_for_bit() -> None:
    """ratio = 1 without scores draws every tensor with weight 1: MeZO's path."""
    ends = []
    for sampler in (Gaussian(), TensorInclusion(ratio=1.0, uniform=True, adaptive=False)):
        optimizer = optimizer_of(sampler)
        for _ in range(10):
            optimizer.step(lambda o=optimizer: sum(float(v.square().sum()) for v in values(o)))  # type: ignore[misc]
        ends.append(values(optimizer))
    assert all(map(torch.equal, *ends))


def estimates(scores: list[float], draws: int, ht: bool = True) -> tuple[Tensor, Tensor, Tensor]:
    """Mean, standard error and mean square of the estimate of a linear function's gradient."""
    sampler = TensorInclusion(adaptive=False, ht=ht)
    optimizer = optimizer_of(sampler)
    sampler.scores = scores
    d = sum(SIZES)
    gradient = torch.linspace(-1, 2, d, dtype=torch.float64)
    total, square = torch.zeros(d, dtype=torch.float64), torch.zeros(d, dtype=torch.float64)
    for step in range(draws):
        sampler.begin_step(step)
        z, g = torch.zeros(d, dtype=torch.float64), torch.zeros(d, dtype=torch.float64)
        at = 0
        for slot in optimizer.engine.slots:
            direction = sampler.direction(slot, Key(0, step, 0))
            if direction is not None:
                part = direction.draw(0, slot.numel, CPU).double()
                z[at : at + slot.numel] = part
                g[at : at + slot.numel] = part * sampler.weight(slot)
            at += slot.numel
        g *= z @ gradient
        total += g
        square += g * g
    mean, second = total / draws, square / draws
    return mean - gradient, (second - mean**2).sqrt() / draws**0.5, second


@pytest.mark.parametrize("spread", [0.0, 2.0])
def test_the_estimate_is_unbiased_with_the_stated_second_moment(spread: float) -> None:
    """E[g] = grad, and E||g||^2 is the closed form for Poisson inclusion, for any probabilities."""
    scores = torch.logspace(-spread, 0, len(SIZES)).tolist()
    bias, error, second = estimates(scores, 12_000)
    assert (bias.abs() < 5 * error).all()
    pi = saturated([s**0.5 for s in scores], 0.4 * len(SIZES))
    gradient = torch.linspace(-1, 2, sum(SIZES), dtype=torch.float64)
    norms = [float(part.square().sum()) for part in gradient.split(SIZES)]
    expected = 0.0
    for b, n in enumerate(SIZES):
        cross = sum(p * norm for c, (p, norm) in enumerate(zip(pi, norms, strict=True)) if c != b)
        expected += ((n + 2) * norms[b] + n * cross) / pi[b]
    assert float(second.sum()) == pytest.approx(expected, rel=0.04)


def test_without_horvitz_thompson_the_estimate_is_biased() -> None:
    """ht: false shrinks each tensor's mean estimate to pi times its gradient."""
    bias, error, _ = estimates([1.0] * len(SIZES), 6_000, ht=False)
    gradient = torch.linspace(-1, 2, sum(SIZES), dtype=torch.float64)
    assert ((bias + 0.6 * gradient).abs() < 5 * error).all()


@pytest.mark.parametrize("variant", ["paper", "released"])
def test_the_scores_follow_the_stated_recursion(variant: str) -> None:
    """One step from the start, worked out by hand from the specification's formulas."""
    sampler = TensorInclusion(variant=variant, adaptive=False)
    optimizer = optimizer_of(sampler)
    optimizer.step(lambda: sum(float((v * (v + 1)).sum()) for v in values(optimizer)))
    assert optimizer.record is not None
    delta = optimizer.record.coefficients[0]
    energy, pi = {}, sampler.pi
    for b, slot in enumerate(optimizer.engine.slots):
        if sampler.drawn[b]:
            z = Gaussian().direction(slot, Key(0, 0, 0)).draw(0, slot.numel, CPU).double()
            energy[b] = float(z @ z)
    for b in range(len(SIZES)):
        expected = 0.01
        if b in energy and variant == "paper":
            expected = 0.9 * 0.01 + 0.1 * (delta**2 / (0.1 * delta**2)) * energy[b] / SIZES[b]
        elif b in energy:
            total = sum(e / pi[c] ** 2 for c, e in energy.items())
            expected = 0.9 * 0.01 + 0.1 * 10 * (energy[b] / pi[b] ** 2) / total
        assert sampler.scores[b] == pytest.approx(expected, rel=1e-6)


def test_the_budget_adapts_towards_its_target_every_twenty_steps() -> None:
    """With equal scores the ratio creeps from 0.4 towards 0.59, a tenth of the way each time."""
    sampler = TensorInclusion(uniform=True)
    optimizer = optimizer_of(sampler)
    ratios = []
    for _ in range(41):
        sampler.scores = [1.0] * len(SIZES)
        optimizer.step(lambda: 1.0)
        ratios.append(sampler.ratio)
    assert len(set(ratios)) == 3
    assert ratios[0] == pytest.approx(0.9 * 0.4 + 0.1 * 0.59, abs=0.02)


def test_it_keeps_no_tensors() -> None:
    """Memory is MeZO's: no buffer on any slot, a few numbers on the host."""
    optimizer = optimizer_of(TensorInclusion())
    for _ in range(3):
        optimizer.step(lambda: sum(float(v.square().sum()) for v in values(optimizer)))
    assert not any(slot.buffers for slot in optimizer.engine.slots)
    assert len(optimizer.engine.sampler.state_dict()["scores"]) == len(SIZES)  # type: ignore[arg-type]
