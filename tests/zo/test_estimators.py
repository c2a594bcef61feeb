"""The estimators of the baselines: points, coefficients, and what they equal at a limit."""

import math
import statistics
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from zobench.zo.directions import Drawn
from zobench.zo.estimators import kernel
from zobench.zo.estimators.base import Estimator
from zobench.zo.estimators.conservative import Conservative
from zobench.zo.estimators.curvature_weighted import CurvatureWeighted
from zobench.zo.estimators.fzoo import FZOO
from zobench.zo.estimators.greedy import Greedy
from zobench.zo.estimators.kalman import Kalman, most_uncertain
from zobench.zo.estimators.kernel import Kernel
from zobench.zo.estimators.one_sided import OneSided
from zobench.zo.estimators.rank_contrast import RankContrast
from zobench.zo.estimators.three_point import ThreePoint
from zobench.zo.estimators.two_sided import TwoSided
from zobench.zo.estimators.z_scored import ZScored
from zobench.zo.feedback import CLEAN, CURVATURE, GRAD, MOVE, Feedback, Key, Step
from zobench.zo.moves import Direction
from zobench.zo.optimizer import ZOOptimizer
from zobench.zo.rules.base import Rule
from zobench.zo.rules.moves import Moves
from zobench.zo.rules.sgd import SGD
from zobench.zo.samplers.gaussian import Gaussian
from zobench.zo.samplers.rademacher import Rademacher
from zobench.zo.space import Slot

CPU = torch.device("cpu")
EPS, LR = 0.1, 0.5
STEP = Step(0, 3, EPS, LR)
Points = list[dict[int, float]]
ALL: list[Callable[[], Estimator]] = [
    RankContrast,
    partial(RankContrast, candidates=7, alpha=0.3),
    Greedy,
    partial(Greedy, candidates=1),
    Conservative,
    FZOO,
    ZScored,
    partial(ZScored, antithetic=True),
    partial(CurvatureWeighted, queries=3),
    Kalman,
    partial(Kalman, subspace=3, extra=4),
    partial(Kalman, subspace=1, extra=0),
    Kernel,
    ThreePoint,
]


def fed(
    estimator: Estimator, losses: list[float], step: Step = STEP
) -> tuple[Points, dict[str, dict[int, float]], float]:
    """Points that are asked for when these losses come back, the channels, the reported loss."""
    left = iter(losses)
    points, feedback = run(estimator, lambda _: next(left), step)
    assert next(left, None) is None, "the estimator asked for fewer losses than it should"
    channels = {n: {k.query: c for k, c in ch.items()} for n, ch in feedback.channels.items()}
    return points, channels, feedback.loss


def run(
    estimator: Estimator, loss: Callable[[dict[int, float]], float], step: Step = STEP
) -> tuple[Points, Feedback]:
    """Points that are asked for when the loss is this function of them, and the feedback."""
    points: Points = []
    asks = estimator.estimate(step)
    try:
        ask = next(asks)
        while True:
            losses = []
            for point in ask if isinstance(ask, list) else [ask]:
                assert isinstance(point, Mapping)
                assert all((k.seed, k.step) == (step.seed, step.number) for k in point)
                points.append({k.query: x for k, x in point.items()})
                losses.append(loss(points[-1]))
            ask = asks.send(losses if isinstance(ask, list) else losses[0])
    except StopIteration as stop:
        feedback: Feedback = stop.value
        return points, feedback


def noisy(point: dict[int, float]) -> float:
    """Some loss of a point: no two points have the same."""
    return 1.0 + math.sin(sum((k + 1.3) * x * 17 for k, x in point.items()))


def optimizer_of(
    x: nn.Parameter,
    estimator: Estimator,
    rule: Rule | None = None,
    *,
    lr: float = 0.01,
    eps: float = 0.1,
    seed: int = 0,
    sampler: Gaussian | Rademacher | None = None,
) -> ZOOptimizer:
    return ZOOptimizer(
        [("x", x)],
        lr=lr,
        eps=eps,
        seed=seed,
        sampler=sampler or Gaussian(),
        estimator=estimator,
        rule=rule or SGD(),
    )


def start(dtype: torch.dtype = torch.float32) -> nn.Parameter:
    values = torch.randn(32, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return nn.Parameter(values.to(dtype))


def bumpy(x: nn.Parameter) -> float:
    """A loss that is neither convex nor odd nor even."""
    w = x.detach().double()
    return float((w**4 / 4 + (3 * w).sin() + w).sum())


def trained(optimizer: ZOOptimizer, x: nn.Parameter, steps: int = 6) -> Tensor:
    for _ in range(steps):
        optimizer.step(partial(bumpy, x))
    return x.detach().clone()


@pytest.mark.parametrize("make", ALL)
def test_it_costs_what_it_declares(make: Callable[[], Estimator]) -> None:
    """As many losses as `forwards`, as many keys as `directions`, clean point first if CLEAN."""
    estimator = make()
    points, feedback = run(estimator, noisy)
    assert len(points) == estimator.forwards
    assert len({k for point in points for k in point}) == estimator.directions
    assert (points[0] == {}) is (CLEAN in estimator.gives)
    assert feedback.channels.keys() == estimator.gives - {CLEAN}


@pytest.mark.parametrize("make", ALL)
def test_a_flat_loss_moves_nothing(make: Callable[[], Estimator]) -> None:
    """Where all losses are equal every coefficient is 0, though 0.1 + 0.1 + 0.1 is not 0.3."""
    _, feedback = run(make(), lambda _: 0.1)
    assert not any(c for channel in feedback.channels.values() for c in channel.values())
    assert feedback.loss == pytest.approx(0.1)


def test_rank_contrast_steps_along_best_minus_worst() -> None:
    """M one-sided points, then +-v with v = mean of the best third less mean of the worst."""
    losses = [0.9, 0.2, 0.5, 0.7, 0.4, 0.8]
    points, channels, loss = fed(RankContrast(candidates=6, alpha=1 / 3), [*losses, 1.7, 0.6])
    assert points[:6] == [{k: EPS} for k in range(6)]
    v = {0: -0.5, 1: 0.5, 4: 0.5, 5: -0.5}
    assert points[6:] == [{k: s * EPS * c for k, c in v.items()} for s in (1, -1)]
    slope = (1.7 - 0.6) / (2 * EPS)
    assert channels == {GRAD: {k: pytest.approx(slope * c) for k, c in v.items()}}
    assert loss == pytest.approx(sum(losses) / 6)


@pytest.mark.parametrize(
    ("candidates", "alpha", "side"), [(2, 0.5, 1), (3, 0.5, 1), (5, 0.5, 2), (4, 0.01, 1)]
)
def test_rank_contrast_has_at_most_half_on_each_side(
    candidates: int, alpha: float, side: int
) -> None:
    """As many good as bad directions, none on both sides, and never none."""
    _, feedback = run(RankContrast(candidates=candidates, alpha=alpha), noisy)
    assert len(feedback.channels[GRAD]) == 2 * side


class Contrast(Gaussian):
    """z_1 - z_2 of the Gaussian sampler, as one direction."""

    def direction(self, slot: Slot, key: Key) -> Direction:
        other = key._replace(query=1)
        return Difference(Drawn.normal(key, slot.id), Drawn.normal(other, slot.id))


class Difference(Direction):
    """first - second."""

    def __init__(self, first: Direction, second: Direction) -> None:
        self.first, self.second = first, second

    def add_to(self, out: Tensor, start: int, first: float, second: float = 0.0) -> None:
        for scale in (first, second):  # z_2 first: the weights are there
            self.second.add_to(out, start, -scale)
            self.first.add_to(out, start, scale)

    def draw(self, start: int, count: int, device: torch.device) -> Tensor:
        return self.first.draw(start, count, device) - self.second.draw(start, count, device)


def test_two_candidates_are_mezo_along_their_difference() -> None:
    """With M = 2 the ranking has no effect, bit for bit: this is MeZO along z_1 - z_2."""
    ends = []
    for sign in (1.0, -1.0):
        x = start()
        optimizer = optimizer_of(x, RankContrast(candidates=2))
        calls = iter(range(10**6))

        def ranked(x: nn.Parameter = x, sign: float = sign, calls: Any = calls) -> float:
            call = next(calls) % 4  # the two losses that only rank, turned round by the sign
            return sign * call if call < 2 else bumpy(x)

        for _ in range(6):
            optimizer.step(ranked)
        ends.append(x.detach().clone())
    x = start()
    mezo = optimizer_of(x, TwoSided(), sampler=Contrast())
    assert torch.equal(ends[0], ends[1])
    assert torch.equal(ends[0], trained(mezo, x))


def test_greedy_moves_to_the_best_candidate() -> None:
    """The lowest of K losses, if it is below the clean one, and else nothing; no GRAD at all."""
    points, channels, loss = fed(Greedy(candidates=3), [0.5, 0.7, 0.3, 0.4])
    assert points == [{}, {0: EPS}, {1: EPS}, {2: EPS}]
    assert (channels, loss) == ({MOVE: {1: EPS}}, 0.5)
    assert fed(Greedy(candidates=3), [0.3, 0.7, 0.3, 0.4])[1] == {MOVE: {}}


def test_conservative_keeps_the_best_of_three() -> None:
    """The pair, the clean point, -lr c and +lr c; ties stay."""
    move = LR * (0.9 - 0.7) / (2 * EPS)
    for last, kept in (
        ([0.5, 0.6, 0.8], {}),
        ([0.5, 0.4, 0.45], {0: pytest.approx(-move)}),
        ([0.5, 0.4, 0.3], {0: pytest.approx(move)}),
        ([0.5, 0.5, 0.5], {}),
    ):
        points, channels, loss = fed(Conservative(), [0.9, 0.7, *last])
        expected = [{0: EPS}, {0: -EPS}, {}, {0: -move}, {0: move}]
        assert points == [{k: pytest.approx(s) for k, s in p.items()} for p in expected]
        assert (channels, loss) == ({MOVE: kept}, 0.5)


@pytest.mark.parametrize("make", [Greedy, Conservative])
def test_a_move_never_raises_the_batch_loss(make: Callable[[], Estimator]) -> None:
    """After each of 60 steps on a fixed loss it is not higher than before, and lower in the end.

    The learning rate is one at which plain descent diverges.
    """
    x = start(torch.float64)
    optimizer = optimizer_of(x, make(), Moves(), lr=0.03)
    before = first = bumpy(x)
    for _ in range(60):
        optimizer.step(partial(bumpy, x))
        assert bumpy(x) <= before + 1e-12
        before = bumpy(x)
    assert before < first - 1.0


@pytest.mark.parametrize("make", [Greedy, Conservative])
def test_a_move_ends_at_the_point_that_was_evaluated(make: Callable[[], Estimator]) -> None:
    """The weights after the step are those of the best evaluation, with their bits."""
    moved = 0
    for seed in range(8):
        x = start()
        seen: list[tuple[float, Tensor]] = []

        def loss(x: nn.Parameter = x, seen: list[tuple[float, Tensor]] = seen) -> float:
            seen.append((bumpy(x), x.detach().clone()))
            return seen[-1][0]

        clean = x.detach().clone()
        optimizer_of(x, make(), Moves(), seed=seed).step(loss)
        candidates = seen if isinstance(make(), Greedy) else seen[2:]
        assert torch.equal(x, min(candidates, key=lambda pair: pair[0])[1])
        moved += not torch.equal(x, clean)
    assert moved > 2


def test_fzoo_divides_by_the_spread_of_the_shifted_losses() -> None:
    """c_k = (F_k - F_0) / (N s) with the population standard deviation of F_1..F_N."""
    losses = np.array([0.9, 0.2, 0.5, 0.7])
    points, channels, loss = fed(FZOO(queries=4), [0.6, *losses])
    assert points == [{}, *({k: EPS} for k in range(4))]
    expected = (losses - 0.6) / (4 * losses.std(ddof=0))
    assert channels == {GRAD: {k: pytest.approx(expected[k]) for k in range(4)}}
    assert loss == 0.6


def test_fzoo_does_not_step_without_a_spread() -> None:
    """Equal shifted losses give no step, even where they differ from the clean one."""
    _, channels, _ = fed(FZOO(queries=3), [0.5, 0.1, 0.1, 0.1])
    assert channels == {GRAD: {0: 0.0, 1: 0.0, 2: 0.0}}


@pytest.mark.parametrize("make", [FZOO, ZScored, partial(ZScored, antithetic=True)])
def test_a_scaled_and_shifted_loss_gives_the_same_step(make: Callable[[], Estimator]) -> None:
    """L -> a L + b with a > 0 changes no coefficient."""
    _, feedback = run(make(), noisy)
    _, other = run(make(), lambda point: 7.0 * noisy(point) - 3.0)
    for key, c in feedback.channels[GRAD].items():
        assert other.channels[GRAD][key] == pytest.approx(c, rel=1e-9)


def test_z_scored_weighs_by_the_score() -> None:
    """c_k = (F_k - mean) / (N std), population standard deviation, one key per member."""
    losses = np.array([0.9, 0.2, 0.5, 0.7])
    points, channels, loss = fed(ZScored(population=4), list(losses))
    assert points == [{k: EPS} for k in range(4)]
    score = (losses - losses.mean()) / losses.std(ddof=0)
    assert channels == {GRAD: {k: pytest.approx(score[k] / 4) for k in range(4)}}
    assert loss == pytest.approx(losses.mean())


def test_an_antithetic_population_has_half_the_directions() -> None:
    """c_k = (s+ - s-) / N over pairs at +eps and -eps, scored over all N."""
    losses = np.array([0.9, 0.2, 0.5, 0.8])
    points, channels, _ = fed(ZScored(population=4, antithetic=True), list(losses))
    assert points == [{0: EPS}, {0: -EPS}, {1: EPS}, {1: -EPS}]
    spread = 4 * losses.std(ddof=0)
    assert channels[GRAD] == {0: pytest.approx(0.7 / spread), 1: pytest.approx(-0.3 / spread)}


def test_curvature_weighs_down_steep_bends() -> None:
    """Each slope over max(1, |(f+ + f- - 2 f0) / eps^2|^power); small bends change nothing."""
    pairs = [(0.9, 0.7), (0.504, 0.499), (0.2, 0.1)]
    points, channels, loss = fed(
        CurvatureWeighted(queries=3, power=0.3), [0.5, *(f for pair in pairs for f in pair)]
    )
    assert points == [{}, *({k: s * EPS} for k in range(3) for s in (1, -1))]
    for k, (plus, minus) in enumerate(pairs):
        bend = abs(plus + minus - 1.0) / EPS**2
        assert (bend > 1) is (k != 1)
        expected = (plus - minus) / (2 * EPS) / 3 / max(1.0, bend**0.3)
        assert channels[GRAD][k] == pytest.approx(expected)
    assert loss == 0.5


def test_curvature_to_the_power_zero_is_the_plain_average() -> None:
    """power = 0 takes the steps of the two-sided average bit for bit."""
    x, y = start(), start()
    weighted = optimizer_of(x, CurvatureWeighted(queries=5, power=0.0), sampler=Rademacher())
    plain = optimizer_of(y, TwoSided(queries=5), sampler=Rademacher())
    assert torch.equal(trained(weighted, x), trained(plain, y))


def posterior(rows: list[Any], readings: list[float], prior: float, noise: float) -> Any:
    """Mean of g given y = H g + noise, solved at once from the normal equations."""
    h = np.array(rows)
    return np.linalg.solve(h.T @ h / noise + np.eye(h.shape[1]) / prior, h.T @ readings / noise)


def test_kalman_is_the_posterior_mean() -> None:
    """Axes first, then along the axes' posterior mean; c solves the normal equations."""
    prior, noise = 2.0, 0.3
    losses = [0.5, 0.9, 0.3, 0.8]
    points, channels, loss = fed(Kalman(prior=prior, noise=noise), losses)
    readings = [(f - 0.5) / EPS for f in losses[1:]]
    mean = posterior([[1, 0], [0, 1]], readings[:2], prior, noise)
    h = mean / np.linalg.norm(mean)
    assert points[:3] == [{}, {0: EPS}, {1: EPS}]
    assert points[3] == {k: pytest.approx(EPS * h[k]) for k in range(2)}
    expected = posterior([[1, 0], [0, 1], h], readings, prior, noise)
    assert channels == {GRAD: {k: pytest.approx(expected[k]) for k in range(2)}}
    assert loss == 0.5


def test_kalman_reads_where_it_knows_least() -> None:
    """Three further readings in three dimensions are orthogonal: none is spent on what is known."""
    points, _ = run(Kalman(subspace=3, extra=3), noisy)
    extra = np.array([[p.get(k, 0.0) / EPS for k in range(3)] for p in points[4:]])
    np.testing.assert_allclose(extra @ extra.T, np.eye(3), atol=1e-9)


def test_the_most_uncertain_direction_is_the_top_eigenvector() -> None:
    """It has length 1 and the mean's side; a mean across it leaves the eigenvector's own sign."""
    basis, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))
    covariance = basis @ np.diag([3.0, 2.0, 1.0]) @ basis.T
    top = basis[:, 0]
    np.testing.assert_allclose(most_uncertain(top + basis[:, 1], covariance), top, atol=1e-12)
    np.testing.assert_allclose(most_uncertain(-top, covariance), -top, atol=1e-12)
    across = most_uncertain(np.zeros(3), covariance)
    np.testing.assert_allclose(across, top * np.sign(top[np.argmax(abs(top))]), atol=1e-12)


def test_kalman_without_noise_is_the_one_sided_sum() -> None:
    """Tiny noise, no extra reading: the steps of one-sided differences, summed over k, to rounding.

    On a linear loss the extra reading tells nothing new.
    """
    x, y = start(torch.float64), start(torch.float64)
    kalman = optimizer_of(x, Kalman(noise=1e-12, extra=0), lr=0.01)
    summed = optimizer_of(y, OneSided(queries=2), lr=0.02)
    torch.testing.assert_close(trained(kalman, x), trained(summed, y), rtol=1e-9, atol=1e-9)
    slopes = {0: 3.0, 1: -2.0}
    _, feedback = run(
        Kalman(noise=1e-12), lambda point: 5.0 + sum(slopes[k] * s for k, s in point.items())
    )
    found = {k.query: c for k, c in feedback.channels[GRAD].items()}
    assert found == {k: pytest.approx(c, rel=1e-9) for k, c in slopes.items()}


def test_the_kernel_estimate_is_weighted_by_k_of_r() -> None:
    """Points at +-eps r, coefficient (f+ - f-) / (2 eps) times (15/4) r (5 - 7 r^2)."""
    points, channels, loss = fed(Kernel(), [0.9, 0.4])
    r = kernel.radius(STEP.key(0))
    assert points == [{0: pytest.approx(EPS * r)}, {0: pytest.approx(-EPS * r)}]
    expected = 0.5 / (2 * EPS) * 15 / 4 * r * (5 - 7 * r**2)
    assert channels == {GRAD: {0: pytest.approx(expected)}} and loss == pytest.approx(0.65)


def test_the_kernel_has_the_moments_that_remove_the_bias() -> None:
    """E[r K] = 1 and E[r^3 K] = 0 for r uniform on [-1, 1]."""
    nodes, weights = np.polynomial.legendre.leggauss(8)
    k = np.array([kernel.weight(r) for r in nodes])
    assert weights @ (nodes * k) / 2 == pytest.approx(1.0)
    assert weights @ (nodes**3 * k) / 2 == pytest.approx(0.0, abs=1e-12)


def test_the_radius_is_uniform_and_named_by_the_key() -> None:
    """Radii of 2000 keys have the moments of U[-1, 1]; the same key has the same one."""
    radii = [kernel.radius(Key(5, step, 0)) for step in range(2000)]
    assert radii[:9] == [kernel.radius(Key(5, step, 0)) for step in range(9)]
    assert min(radii) >= -1.0 and max(radii) < 1.0
    assert statistics.fmean(radii) == pytest.approx(0.0, abs=4 / math.sqrt(3 * 2000))
    assert statistics.fmean(r * r for r in radii) == pytest.approx(1 / 3, abs=0.03)


def test_a_constant_radius_and_kernel_are_mezo(monkeypatch: pytest.MonkeyPatch) -> None:
    """r = 1 and K = 1 take MeZO's steps bit for bit."""
    monkeypatch.setattr(kernel, "radius", lambda _: 1.0)
    monkeypatch.setattr(kernel, "weight", lambda _: 1.0)
    x, y = start(), start()
    assert torch.equal(
        trained(optimizer_of(x, Kernel()), x), trained(optimizer_of(y, TwoSided()), y)
    )


def test_three_points_give_slope_and_curvature() -> None:
    """MeZO's coefficient, and |f+ + f- - 2 f0| / (2 eps^2)."""
    points, channels, loss = fed(ThreePoint(), [0.5, 0.9, 0.4])
    assert points == [{}, {0: EPS}, {0: -EPS}]
    assert channels[GRAD] == {0: pytest.approx(0.5 / (2 * EPS))}
    assert channels[CURVATURE] == {0: pytest.approx(0.3 / (2 * EPS**2))}
    assert loss == 0.5


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (partial(RankContrast, candidates=1), "estimator.candidates=1: must be at least 2"),
        (partial(RankContrast, alpha=0.6), "estimator.alpha=0.6: must be in (0, 0.5]"),
        (partial(RankContrast, alpha=0.0), "estimator.alpha=0.0: must be in (0, 0.5]"),
        (partial(Greedy, candidates=0), "estimator.candidates=0: must be at least 1"),
        (partial(FZOO, queries=1), "estimator.queries=1: must be at least 2"),
        (partial(ZScored, population=1), "estimator.population=1: must be at least 2"),
        (
            partial(ZScored, population=5, antithetic=True),
            "estimator.population=5: must be even if antithetic",
        ),
        (partial(CurvatureWeighted, queries=0), "estimator.queries=0: must be at least 1"),
        (partial(CurvatureWeighted, power=-1.0), "estimator.power=-1.0: must not be negative"),
        (partial(Kalman, subspace=0), "estimator.subspace=0: must be at least 1"),
        (partial(Kalman, extra=-1), "estimator.extra=-1: must not be negative"),
        (
            partial(Kalman, noise=0.0),
            "estimator.prior=1.0, estimator.noise=0.0: must be positive",
        ),
    ],
)
def test_impossible_settings_are_refused(make: Callable[[], Estimator], words: str) -> None:
    """In one sentence that names the key and its value."""
    with pytest.raises(ValueError) as caught:
        make()
    assert str(caught.value) == words
