"""DP-ZO: what is clipped, what noise is added, and that nothing of an example gets past it."""

import random

import pytest
import torch
from torch import Tensor, nn

from tests.zo.directions import z_of
from zobench.zo.estimators.private import Private
from zobench.zo.estimators.two_sided import TwoSided
from zobench.zo.feedback import Key
from zobench.zo.optimizer import ZOOptimizer
from zobench.zo.privacy import epsilon_of
from zobench.zo.rules.sgd import SGD
from zobench.zo.samplers.gaussian import Gaussian

CPU = torch.device("cpu")
SIZE = 5
SLOPES = torch.randn(8, SIZE, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def optimizer_of(estimator: Private | TwoSided, seed: int = 0, lr: float = 0.1) -> ZOOptimizer:
    weight = nn.Parameter(torch.zeros(SIZE, dtype=torch.float64))
    parts = {"sampler": Gaussian(), "estimator": estimator, "rule": SGD()}
    return ZOOptimizer([("w", weight)], lr=lr, eps=0.5, seed=seed, **parts)  # type: ignore[arg-type]


def weight_of(optimizer: ZOOptimizer) -> Tensor:
    return optimizer.engine.slots[0].flat


def losses(optimizer: ZOOptimizer, examples: Tensor = SLOPES) -> Tensor:
    """(B,) losses that are linear in the weights, whose slopes are known."""
    return examples @ weight_of(optimizer)


def direction(optimizer: ZOOptimizer, step: int) -> Tensor:
    sampler, [slot] = optimizer.engine.sampler, optimizer.engine.slots
    return z_of(sampler, slot, Key(0, step, 0)).draw(0, SIZE, CPU).double()


def test_steps_are_those_of_a_dense_reference() -> None:
    """Without noise: the mean of the examples' clipped slopes times z, from plain tensors."""
    optimizer = optimizer_of(Private(clip=0.7, noise=0.0, delta=1e-5))
    weight, clipped = torch.zeros(SIZE, dtype=torch.float64), 0
    for step in range(6):
        z = direction(optimizer, step)
        slopes = SLOPES @ z
        clipped += int((slopes.abs() > 0.7).sum())
        c = float(slopes.clamp(-0.7, 0.7).mean())
        loss = optimizer.step(lambda: losses(optimizer))
        assert loss == pytest.approx(float((SLOPES @ (weight + 0.5 * z)).mean()), rel=1e-6)
        weight = weight - 0.1 * c * z
        assert optimizer.record is not None
        assert optimizer.record.coefficients == pytest.approx((c,), rel=1e-6)
        torch.testing.assert_close(weight_of(optimizer), weight, rtol=1e-6, atol=1e-8)
    assert 0 < clipped < 6 * len(SLOPES)


def test_a_bound_that_nothing_reaches_is_mezo() -> None:
    """A huge bound and no noise: the two-sided estimate of the mean loss."""
    private = optimizer_of(Private(clip=1e9, noise=0.0, delta=1e-5))
    plain = optimizer_of(TwoSided())
    for _ in range(5):
        private.step(lambda: losses(private))
        plain.step(lambda: losses(plain).mean())
    torch.testing.assert_close(weight_of(private), weight_of(plain), rtol=1e-9, atol=1e-12)


def test_an_example_moves_the_sum_by_the_bound_at_most() -> None:
    """An outlier, whatever its loss, changes the batch's sum of slopes by no more than `clip`."""
    found = []
    for factor in (0.0, 1.0, 1e6, -1e6):
        examples = torch.cat([SLOPES, factor * torch.ones(1, SIZE, dtype=torch.float64)])
        optimizer = optimizer_of(Private(clip=0.7, noise=0.0, delta=1e-5))
        optimizer.step(lambda o=optimizer, x=examples: losses(o, x))  # type: ignore[misc]
        assert optimizer.record is not None
        found.append(optimizer.record.coefficients[0] * len(examples))
    assert all(abs(one - found[0]) <= 0.7 + 1e-9 for one in found)
    assert max(abs(one - found[0]) for one in found) == pytest.approx(0.7, rel=1e-6)


def test_the_noise_has_the_stated_law() -> None:
    """Over 4,000 steps of a flat loss: N(0, (clip noise / B)^2), its moments within five errors."""
    steps, examples = 4000, 4
    optimizer = optimizer_of(Private(clip=2.0, noise=3.0, delta=1e-5), lr=0.0)
    found = []
    for _ in range(steps):
        optimizer.step(lambda: torch.ones(examples))
        assert optimizer.record is not None
        found.append(optimizer.record.coefficients[0] / (2.0 * 3.0 / examples))
    x = torch.tensor(found, dtype=torch.float64)
    for power, mean, variance in ((1, 0.0, 1.0), (2, 1.0, 2.0), (3, 0.0, 15.0), (4, 3.0, 96.0)):
        assert abs(float((x**power).mean()) - mean) < 5 * (variance / steps) ** 0.5


def test_the_noise_is_a_function_of_seed_and_step() -> None:
    """Not of the global generators, which stay as they are."""

    def walk(seed: int) -> Tensor:
        optimizer = optimizer_of(Private(clip=1.0, noise=1.0, delta=1e-5), seed=seed)
        for _ in range(4):
            optimizer.step(lambda: losses(optimizer))
        return weight_of(optimizer).clone()

    states = torch.random.get_rng_state(), random.getstate()
    first, again, other = walk(0), walk(0), walk(1)
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert torch.equal(torch.random.get_rng_state(), states[0]) and random.getstate() == states[1]


def test_the_ledger_alone_replays_it() -> None:
    """Two losses a step give the coefficient to the bit, without any example."""
    live, replayed = (optimizer_of(Private(clip=0.7, noise=1.0, delta=1e-5)) for _ in range(2))
    for _ in range(6):
        loss = live.step(lambda: losses(live))
        assert live.record is not None and len(live.record.losses) == 2
        assert replayed.replay(live.record) == loss
    assert torch.equal(weight_of(live), weight_of(replayed))


def test_one_number_is_a_batch_of_one_example() -> None:
    """So that a closure of a single example needs no vector."""
    one, many = (optimizer_of(Private(clip=0.7, noise=1.0, delta=1e-5)) for _ in range(2))
    one.step(lambda: float(losses(one, SLOPES[:1])))
    many.step(lambda: losses(many, SLOPES[:1]))
    assert torch.equal(weight_of(one), weight_of(many))


def test_the_report_is_the_accountants() -> None:
    """Epsilon of so many steps at that rate; without noise nothing is promised."""
    report = Private(clip=1.0, noise=1.1, delta=1e-5).report(300, 0.02)
    spent = epsilon_of(noise=1.1, rate=0.02, steps=300, delta=1e-5)
    assert report == {"epsilon": spent, "delta": 1e-5}
    assert Private(clip=1.0, noise=0.0, delta=1e-5).report(300, 0.02) == {}


@pytest.mark.parametrize("wrong", [{"clip": 0.0}, {"noise": -1.0}, {"delta": 1.0}])
def test_impossible_settings_are_refused(wrong: dict[str, float]) -> None:
    """The sentence names all three."""
    [(name, value)] = wrong.items()
    with pytest.raises(ValueError, match=rf"estimator\.{name}={value}"):
        Private(**{"clip": 1.0, "noise": 1.0, "delta": 1e-5, **wrong})


def test_points_that_are_evaluated_together_are_refused() -> None:
    """They have one loss for the batch."""
    model = nn.Linear(2, 1)
    with pytest.raises(ValueError, match="pack=2: estimator Private needs the loss of each"):
        ZOOptimizer(
            model.named_parameters(),
            lr=0.1,
            eps=1.0,
            sampler=Gaussian(),
            estimator=Private(clip=1.0, noise=1.0, delta=1e-5),
            rule=SGD(),
            pack=2,
            model=model,
        )
