"""LDSD: its coefficients, what its mean learns, and its controls."""

import math
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.zo.directions import z_of
from zobench.zo import noise
from zobench.zo.directions import Drawn
from zobench.zo.engine import Engine
from zobench.zo.estimators.best_of_k import BestOfK
from zobench.zo.feedback import GRAD, POLICY, Key, Step
from zobench.zo.optimizer import ZOOptimizer
from zobench.zo.rules.adamm import AdaMM
from zobench.zo.rules.sgd import SGD
from zobench.zo.samplers.learned_mean import LearnedMean

CPU = torch.device("cpu")
LOSSES = [0.9, 0.2, 0.5, 0.7, 0.4]


def fed(estimator: BestOfK, losses: list[float]) -> tuple[list[Any], dict[str, dict[int, float]]]:
    """Points that the estimator asks for when it receives these losses, and its channels."""
    points: list[Any] = []
    left = iter(losses)
    generator = estimator.estimate(Step(0, 3, 0.1))
    ask = next(generator)
    try:
        for _ in losses:
            several = isinstance(ask, list)
            points += ask if several else [ask]
            values = [next(left) for _ in ask] if several else next(left)
            ask = generator.send(values)
    except StopIteration as stop:
        channels = stop.value.channels
        return points, {n: {k.query: v for k, v in c.items()} for n, c in channels.items()}
    raise AssertionError("the estimator asked for more losses than it should")


def test_best_of_k_is_the_papers_step() -> None:
    """K + 1 points, the mirror of the best last; c and A_k as in Algorithm 2."""
    points, channels = fed(BestOfK(candidates=5), [*LOSSES, 0.8])
    assert [dict(p) for p in points] == [
        *({Key(0, 3, k): 0.1} for k in range(5)),
        {Key(0, 3, 1): -0.1},
    ]
    assert channels[GRAD] == {1: pytest.approx((0.2 - 0.8) / 0.2)}
    for k, loss in enumerate(LOSSES):
        others = [x for j, x in enumerate(LOSSES) if j != k]
        assert channels[POLICY][k] == pytest.approx(loss - sum(others) / 4)


def test_the_released_form_evaluates_the_best_again() -> None:
    """K + 2 points; the second reading of the best candidate is the one that counts."""
    points, channels = fed(BestOfK(candidates=5, variant="released"), [*LOSSES, 0.3, 0.8])
    assert len(points) == 7 and points[5] == points[1]
    assert channels[GRAD] == {1: pytest.approx((0.3 - 0.8) / 0.2)}


def test_the_mean_of_the_better_half_is_one_direction() -> None:
    """choice=mean_top: three of five, each a third of the direction and of the coefficient."""
    points, channels = fed(BestOfK(candidates=5, choice="mean_top"), [*LOSSES, 0.3, 0.8])
    assert points[5] == {Key(0, 3, k): pytest.approx(0.1 / 3) for k in (1, 4, 2)}
    slope = (0.3 - 0.8) / 0.2
    assert channels[GRAD] == {k: pytest.approx(slope / 3) for k in (1, 4, 2)}


def test_the_random_choice_ignores_the_losses_and_repeats() -> None:
    """choice=random: the same candidate whatever the losses, each about equally often."""
    picks = []
    for step in range(200):
        keys = {Key(0, step, k): float(k) for k in range(5)}
        back = {key: -loss for key, loss in keys.items()}
        estimator = BestOfK(candidates=5, choice="random")
        assert estimator._choose(keys) == estimator._choose(back)
        picks.append(estimator._choose(keys)[0].query)
    assert all(picks.count(k) > 20 for k in range(5))


def slope(parameter: nn.Parameter, gradient: Tensor) -> float:
    return float(parameter.detach().flatten() @ gradient)


def ldsd(parameter: nn.Parameter, seed: int, gamma_mu: float, **estimator: object) -> ZOOptimizer:
    return ZOOptimizer(
        [("x", parameter)],
        lr=0.0,
        eps=1e-3,
        seed=seed,
        sampler=LearnedMean(gamma_mu=gamma_mu),
        estimator=BestOfK(**estimator),  # type: ignore[arg-type]
        rule=SGD(),
    )


@pytest.mark.laws
@pytest.mark.parametrize(("candidates", "seeds"), [(2, 32), (5, 12), (10, 8)])
def test_the_mean_aligns_with_a_fixed_gradient_as_the_law_says(candidates: int, seeds: int) -> None:
    """cos^2(mu_t, g) = t / (t + (d + 1) / (K - 1)) within 10 %, mean over seeds, d = 123.

    An update with other noise than was evaluated, as released, has cos^2 = 1 / d and fails.
    """
    d, checks = 123, (30, 100, 200)
    gradient = torch.randn(d, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = dict.fromkeys(checks, 0.0)
    for seed in range(seeds):
        parameter = nn.Parameter(torch.zeros(d, dtype=torch.float64))
        optimizer = ldsd(parameter, seed, 1e-3, candidates=candidates)
        for step in range(1, max(checks) + 1):
            optimizer.step(partial(slope, parameter, gradient))
            if step in found:
                mu = optimizer.engine.slots[0].buffers["learned_mean"].double()
                found[step] += (
                    float((mu @ gradient) ** 2 / (mu @ mu) / (gradient @ gradient)) / seeds
                )
    for step, value in found.items():
        assert value == pytest.approx(step / (step + (d + 1) / (candidates - 1)), rel=0.1)


def landscape(d: int, kappa: float, cos2: float) -> float:
    """E[cos^2(v, g)] for |mu| = kappa sigma at an angle to g: cos^2 (1 - d beta_d) + beta_d.

    beta_d = 1F1(1; d/2 + 1; -x) / d, x = kappa^2 / 2, by Kummer's transformation to a series of
    positive terms.
    """
    x, half = kappa**2 / 2, d / 2
    terms = (
        half / (half + k) * math.exp(k * math.log(x) - math.lgamma(k + 1) - x) for k in range(400)
    )
    beta = math.fsum(terms) / d if x else 1 / d
    return cos2 * (1 - d * beta) + beta


def alignment(d: int, draws: int, kappa: float, angle: float) -> tuple[float, float]:
    """Mean and standard error of cos^2(v, g) over the sampler's own directions.

    Elements of a direction are independent around mu: one tensor of `draws` rows holds them all.
    """
    sampler = LearnedMean(gamma_mu=0.0, sigma=2.0)
    rows = nn.Parameter(torch.zeros(draws, d))
    parts = {"sampler": sampler, "estimator": BestOfK(), "rule": SGD()}
    [slot] = ZOOptimizer([("x", rows)], lr=0.0, eps=1.0, **parts).engine.slots  # type: ignore[arg-type]
    mu = torch.zeros(d)
    mu[:2] = 2.0 * kappa * torch.tensor([math.cos(angle), math.sin(angle)])
    slot.buffer("learned_mean").copy_(mu.repeat(draws))
    v = z_of(sampler, slot, Key(0, 0, 0)).draw(0, slot.numel, CPU).view(draws, d).double()
    cosines = v[:, 0].square() / v.square().sum(1)
    return float(cosines.mean()), float(cosines.std()) / draws**0.5


@pytest.mark.parametrize(
    ("kappa", "along", "across"),
    [
        (0.0, 0.5, 0.5),
        (0.5, 0.530, 0.470),
        (1, 0.607, 0.393),
        (3, 0.890, 0.110),
        (10, 0.990, 0.010),
    ],
)
def test_the_landscape_has_the_published_values(kappa: float, along: float, across: float) -> None:
    """d = 2: a saddle at mu = 0, ridges along the gradient; three digits of the specification."""
    for angle, value in ((0.0, along), (math.pi / 2, across)):
        assert alignment(2, 400_000, kappa, angle)[0] == pytest.approx(value, abs=2.5e-3)


@pytest.mark.parametrize(("d", "draws"), [(2, 100_000), (10, 40_000), (123, 8_000)])
@pytest.mark.parametrize("kappa", [0.0, 0.5, 1.0, 3.0, 10.0])
@pytest.mark.parametrize("angle", [0.0, math.pi / 3, math.pi / 2])
def test_the_alignment_landscape(d: int, draws: int, kappa: float, angle: float) -> None:
    """E[cos^2(v, g)] around a mean is the closed form, to 4 standard errors of at most 2 %."""
    mean, error = alignment(d, draws, kappa, angle)
    expected = landscape(d, kappa, math.cos(angle) ** 2)
    assert mean == pytest.approx(expected, abs=4 * error)
    assert error < 0.02 * expected


def step_of(choice: str, seed: int) -> tuple[list[Tensor], ZOOptimizer, Tensor, Tensor]:
    """A step around a mean that is not zero: its points, the optimizer, start and mu before it."""
    generator = torch.Generator().manual_seed(seed)
    x = nn.Parameter(torch.randn(8, 4, generator=generator))
    sampler = LearnedMean(gamma_mu=0.5, sigma=1.5)
    estimator = BestOfK(candidates=5, choice=choice)
    optimizer = ZOOptimizer(
        [("x", x)], lr=0.01, eps=0.1, seed=seed, sampler=sampler, estimator=estimator, rule=SGD()
    )
    [slot] = optimizer.engine.slots
    slot.buffer("learned_mean").copy_(torch.randn(32, generator=generator))
    start, mu = slot.flat.clone(), slot.buffer("learned_mean").clone()
    points: list[Tensor] = []

    def loss() -> float:
        points.append(slot.flat.clone())
        return float((slot.flat.double() ** 3 + slot.flat.double()).sum())

    optimizer.step(loss)
    return points, optimizer, start, mu


@pytest.mark.parametrize("choice", ["best", "random", "mean_top"])
def test_a_step_of_every_control_is_the_stated_one(choice: str) -> None:
    """x moves along the chosen v (the mean of the better three, for mean_top) and mu by all five.

    The mirror point is the chosen direction's; best and random cost K + 1 passes, mean_top K + 2.
    """
    was_best = 0
    for seed in range(8):
        points, optimizer, start, mu = step_of(choice, seed)
        record, [slot] = optimizer.record, optimizer.engine.slots
        assert record is not None
        noises = [Drawn.normal(Key(seed, 0, k), slot.id).draw(0, 32, CPU) for k in range(5)]
        v = [mu + 1.5 * n for n in noises]
        losses = record.losses[:5]
        ranked = sorted(range(5), key=losses.__getitem__)
        [mirror] = [(start - point) / 0.1 for point in points[-1:]]
        chosen = [k for k in range(5) if torch.allclose(v[k], mirror, atol=1e-4)]
        if choice == "mean_top":
            assert len(points) == 7
            along = sum(v[k] for k in ranked[:3]) / 3
            torch.testing.assert_close(mirror, along, rtol=1e-4, atol=1e-4)
        else:
            assert len(points) == 6 and len(chosen) == 1
            along = v[chosen[0]]
            was_best += chosen == ranked[:1]
        plus = record.losses[5] if choice == "mean_top" else losses[chosen[0]]
        slope = (plus - record.losses[-1]) / 0.2
        torch.testing.assert_close(slot.flat, start - 0.01 * slope * along, rtol=1e-4, atol=1e-5)
        for k, n in enumerate(noises):
            mu = mu - 0.5 / (5 * 1.5) * (5 * losses[k] - sum(losses)) / 4 * n
        torch.testing.assert_close(slot.buffers["learned_mean"], mu, rtol=1e-4, atol=1e-4)
    assert choice != "best" or was_best == 8
    assert choice != "random" or was_best < 8


def test_every_candidate_is_left_again() -> None:
    """K + 1 passes at x + tau v_k, each from clean weights, which come back.

    After 18 passes 95 % of 4096 float32 weights have the bits they had; none is off by more than
    two units in the last place of the largest value that it took on the way.
    """
    x = nn.Parameter(torch.randn(64, 64, generator=torch.Generator().manual_seed(0)))
    optimizer = ldsd(x, 0, 1e-2)
    [slot] = optimizer.engine.slots
    clean = slot.flat.clone()
    points: list[Tensor] = []
    for step in range(3):
        before = slot.flat.clone()
        mu = slot.buffer("learned_mean").clone()
        points.clear()

        def loss() -> float:
            points.append(slot.flat.clone())
            return float(slot.flat.double().square().sum())

        optimizer.step(loss)
        assert len(points) == 6
        for k, point in enumerate(points[:5]):
            v = mu + Drawn.normal(Key(0, step, k), slot.id).draw(0, slot.numel, CPU)
            torch.testing.assert_close(point, before + 1e-3 * v, rtol=0, atol=1e-6)
    largest = clean.abs() + 5e-3
    unit = torch.nextafter(largest, torch.tensor(math.inf)) - largest
    drift = (slot.flat - clean).abs() / unit
    assert float(drift.max()) <= 2
    assert float((drift == 0).float().mean()) > 0.95


def test_the_mean_drifts_down_the_gradient_by_gamma_tau() -> None:
    """E[mu_1] = -gamma_mu tau g; tau_free divides by tau."""
    d, seeds = 20, 400
    gradient = torch.linspace(1, 2, d, dtype=torch.float64)
    for tau_free, factor in ((False, 1e-3), (True, 1.0)):
        total = torch.zeros(d, dtype=torch.float64)
        for seed in range(seeds):
            parameter = nn.Parameter(torch.zeros(d, dtype=torch.float64))
            optimizer = ldsd(parameter, seed, 2.0, tau_free=tau_free)
            optimizer.step(partial(slope, parameter, gradient))
            total += optimizer.engine.slots[0].buffers["learned_mean"]
        along = float(total @ gradient / (gradient @ gradient)) / seeds
        assert along == pytest.approx(-2.0 * factor, rel=0.05)


def test_without_learning_the_directions_are_mezos() -> None:
    """gamma_mu = 0 keeps mu at zero: every v is the Gaussian sampler's z with the same key."""
    parameter = nn.Parameter(torch.zeros(300))
    optimizer = ldsd(parameter, 0, 0.0)
    for _ in range(3):
        optimizer.step(lambda: float(parameter.detach().sum()))
    engine: Engine = optimizer.engine
    [slot] = engine.slots
    assert not slot.buffer("learned_mean").any()
    key = Key(0, 3, 2)
    gaussian = Drawn.normal(key, slot.id).draw(0, 300, CPU)
    direction = engine.sampler.direction(slot, key)
    assert direction is not None
    assert torch.equal(direction.draw(0, 300, CPU), gaussian)


def test_sigma_scales_the_noise_around_the_mean() -> None:
    """v = mu + sigma n."""
    parameter = nn.Parameter(torch.zeros(300))
    sampler = LearnedMean(gamma_mu=1e-3, sigma=2.0)
    optimizer = ldsd(parameter, 0, 0.0)
    [slot] = optimizer.engine.slots
    slot.buffer("learned_mean").fill_(0.5)
    v = z_of(sampler, slot, Key(0, 0, 0)).draw(10, 200, CPU)
    n = noise.draw(noise.Law.NORMAL16, noise.Stream(noise.mix(0, 0, 0), slot.id), 10, 200, CPU)
    torch.testing.assert_close(v, 0.5 + 2.0 * n)


def test_adamm_is_amsgrad_without_bias_correction() -> None:
    """Three steps on a known estimate follow the published recursion."""
    parameter = nn.Parameter(torch.zeros(50, dtype=torch.float64))
    optimizer = ZOOptimizer(
        [("x", parameter)],
        lr=0.1,
        eps=1e-3,
        sampler=LearnedMean(gamma_mu=0.0),
        estimator=BestOfK(),
        rule=AdaMM(),
    )
    x = torch.zeros(50, dtype=torch.float64)
    m, v, top = torch.zeros(3, 50, dtype=torch.float64)
    gradient = torch.linspace(-1, 1, 50, dtype=torch.float64)
    for step in range(3):
        optimizer.step(partial(slope, parameter, gradient * (3 - step)))
        record = optimizer.record
        assert record is not None
        best = min(range(5), key=lambda k: record.losses[k])
        stream = noise.Stream(noise.mix(0, step, best), optimizer.engine.slots[0].id)
        g = record.coefficients[0] * noise.draw(noise.Law.NORMAL16, stream, 0, 50, CPU).double()
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        top = torch.maximum(top, v)
        x = x - 0.1 * m / (top.sqrt() + 1e-10)
        torch.testing.assert_close(parameter.detach(), x, rtol=1e-4, atol=1e-5)
