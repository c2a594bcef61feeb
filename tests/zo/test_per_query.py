"""Steps that a rule takes once for each query: from query 0 up, wherever the weights stood."""

import pkgutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from zobench.zo import estimators, noise
from zobench.zo.arithmetic import Arithmetic
from zobench.zo.batched_runs import BatchedRuns, copies_of
from zobench.zo.engine import drive
from zobench.zo.estimators.base import Estimator
from zobench.zo.estimators.best_of_k import BestOfK
from zobench.zo.estimators.centered import Centered
from zobench.zo.estimators.curvature_weighted import CurvatureWeighted
from zobench.zo.estimators.forward_gradient import ForwardGradient
from zobench.zo.estimators.fzoo import FZOO
from zobench.zo.estimators.kalman import Kalman
from zobench.zo.estimators.one_sided import OneSided
from zobench.zo.estimators.probing import Probing
from zobench.zo.estimators.projected import Projected
from zobench.zo.estimators.rank_contrast import RankContrast
from zobench.zo.estimators.rloo import RLOO
from zobench.zo.estimators.three_point import ThreePoint
from zobench.zo.estimators.two_sided import TwoSided
from zobench.zo.estimators.z_scored import ZScored
from zobench.zo.feedback import GRAD, MOVE, Key
from zobench.zo.forward_mode import loss_and_slope
from zobench.zo.optimizer import ZOOptimizer
from zobench.zo.rules.base import Rule
from zobench.zo.rules.coordinates import InCoordinates
from zobench.zo.rules.momentum import Momentum
from zobench.zo.samplers.base import Sampler
from zobench.zo.samplers.diagonal_hessian import DiagonalHessian
from zobench.zo.samplers.drift import Drift
from zobench.zo.samplers.gaussian import Gaussian
from zobench.zo.samplers.lazy_low_rank import LazyLowRank
from zobench.zo.samplers.learned_mean import LearnedMean
from zobench.zo.samplers.rank_one_curvature import RankOneCurvature

STEPS, LR, EPS, BETA = 4, 3e-3, 0.05, 0.5
SEVERAL: dict[str, Callable[[], Estimator]] = {
    "two_sided": lambda: TwoSided(queries=4),
    "one_sided": lambda: OneSided(queries=4),
    "rloo": lambda: RLOO(queries=5),
    "best_of_k": lambda: BestOfK(candidates=6, choice="mean_top"),
    "fzoo": lambda: FZOO(queries=5),
    "kalman": lambda: Kalman(subspace=3, extra=1),
    "rank_contrast": lambda: RankContrast(candidates=6),
    "centered": lambda: Centered(queries=5),
    "z_scored": lambda: ZScored(population=5),
    "z_scored antithetic": lambda: ZScored(population=8, antithetic=True),
    "curvature_weighted": lambda: CurvatureWeighted(queries=3),
    "forward_gradient": lambda: ForwardGradient(queries=3),
    "probing": lambda: Probing(TwoSided(queries=3), every=2, probes=2),
}
Parts = tuple[Callable[[], Sampler], Callable[[], Estimator], Callable[[], Rule]]
PER_QUERY = lambda **more: Momentum(beta=BETA, per_query=True, **more)  # noqa: E731
# What brings weights back along directions that are no queries, and laws and rules of other kinds.
OTHERS: dict[str, Parts] = {
    "projections": (
        lambda: Drift(match="l"),
        lambda: Projected(TwoSided(queries=3), every=2, iterations=2),
        PER_QUERY,
    ),
    "hizoo": (lambda: DiagonalHessian(alpha=1e-3), ThreePoint, PER_QUERY),
    "hizoo released": (
        lambda: DiagonalHessian(alpha=1e-3, variant="released"),
        ThreePoint,
        PER_QUERY,
    ),
    "loren": (
        lambda: RankOneCurvature(eps=EPS, lr_cov=0.1),
        RLOO,
        lambda: PER_QUERY(vectors=False),
    ),
    "ldsd": (lambda: LearnedMean(gamma_mu=1e-2), BestOfK, PER_QUERY),
    "an average": (Gaussian, RLOO, lambda: PER_QUERY(damped=True)),
    "coordinates": (LazyLowRank, lambda: TwoSided(queries=3), lambda: InCoordinates(PER_QUERY())),
}
ALL: dict[str, Parts] = {n: (Gaussian, e, PER_QUERY) for n, e in SEVERAL.items()} | OTHERS
each = pytest.mark.parametrize("name", ALL)


class Net(nn.Module):
    """Two layers with a norm between; the loss is some number of them, times a batch's weight."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self.l1, self.norm, self.l2 = nn.Linear(5, 6), nn.LayerNorm(6), nn.Linear(6, 4)
        for parameter in self.parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator)
        self.x = torch.randn(3, 5, generator=generator)

    def loss(self, weight: float | Tensor = 1.0) -> Tensor:
        out: Tensor = self.l2(torch.tanh(self.norm(self.l1(self.x))))
        return out.square().mean() * weight


def optimizer_of(name: str, net: Any, *, pack: int | None = None, walk: str = "inplace") -> Any:
    sampler, estimator, rule = ALL[name]
    named = net.named_parameters() if isinstance(net, nn.Module) else net.items()
    parts: dict[str, Any] = {"sampler": sampler(), "estimator": estimator(), "rule": rule()}
    model = net if isinstance(net, nn.Module) else None
    more: dict[str, Any] = {"arithmetic": Arithmetic(walk=walk), "pack": pack, "model": model}
    return ZOOptimizer(named, lr=LR, eps=EPS, seed=7, **parts, **more)


def weights(net: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in net.parameters()])


def alone(name: str, pack: int | None = None, walk: str = "inplace") -> tuple[Tensor, list[Any]]:
    """Weights and records after a few steps, whose batches differ."""
    net = Net()
    optimizer = optimizer_of(name, net, pack=pack, walk=walk)
    records = []
    for step in range(STEPS):
        optimizer.step(lambda step=step: net.loss(1.0 + step))
        records.append(optimizer.record)
    return weights(net), records


def replayed(name: str, records: list[Any]) -> Tensor:
    net = Net()
    optimizer = optimizer_of(name, net)
    for record in records:
        optimizer.replay(record)
    return weights(net)


def in_a_batch_of_runs(name: str) -> Tensor:
    """The first of two members, whose points share calls."""
    net = Net()
    copies = [copies_of(net) for _ in range(2)]
    batch = BatchedRuns[float](net, [optimizer_of(name, own) for own in copies], 3)

    def losses(batches: Any) -> Any:
        return {"weight": torch.tensor([*batches])}, lambda row: net.loss(row["weight"])

    for step in range(STEPS):
        batch.step({0: 1.0 + step, 1: 3.0 - step}, losses)
    return torch.cat([p.detach().flatten() for p in copies[0].values()])


def close(found: Tensor, other: Tensor, start: Tensor) -> None:
    """Equal to rounding, and by far nearer than any step is long."""
    moved = float((other - start).abs().max())
    assert moved > 1e-3
    torch.testing.assert_close(found, other, rtol=0.0, atol=2e-3 * moved + 2e-5)


@each
def test_every_way_of_evaluating_takes_the_queries_in_one_order(name: str) -> None:
    """In place, from clean weights, two points or all of them at once, side by side: one result.

    And the records of each give its weights bit for bit.
    """
    start = weights(Net())
    one, records = alone(name)
    assert torch.equal(replayed(name, records), one)
    for pack, walk in ((None, "scratch"), (2, "inplace"), (99, "inplace")):
        other, packed = alone(name, pack, walk)
        close(other, one, start)
        if walk == "inplace":
            assert torch.equal(replayed(name, packed), other)
    close(in_a_batch_of_runs(name), one, start)


@pytest.mark.parametrize("name", SEVERAL)
@pytest.mark.parametrize("pack", [None, 99])
def test_the_result_is_that_of_a_plain_loop_over_queries(name: str, pack: int | None) -> None:
    """m <- beta m + g_k; w <- w - lr m for k = 0, 1, ... in float64, on directions drawn whole."""
    net, loop = Net(), Net()
    optimizer, asked = optimizer_of(name, net, pack=pack), optimizer_of(name, loop)
    slots = asked.engine.slots
    momentum = {slot.name: torch.zeros(slot.numel, dtype=torch.float64) for slot in slots}
    exact = {slot.name: slot.flat.double() for slot in slots}
    for step in range(STEPS):
        optimizer.step(lambda step=step: net.loss(1.0 + step))
        grad = coefficients(asked, loop, step)
        assert len(grad) > 1
        for key in sorted(grad, key=lambda key: key.query):
            for slot in slots:
                stream = noise.Stream(noise.mix(*key), slot.id)
                z = noise.draw(noise.Law.NORMAL16, stream, 0, slot.numel, torch.device("cpu"))
                m = momentum[slot.name].mul_(BETA).add_(z.double() * grad[key])
                exact[slot.name] -= LR * m
        for slot in slots:
            slot.flat.copy_(exact[slot.name])
    end = torch.cat([exact[slot.name] for slot in slots]).float()
    close(weights(net), end, weights(Net()))


@torch.no_grad()
def coefficients(optimizer: Any, net: Net, step: int) -> dict[Key, float]:
    """What the estimator makes of the step, at whose end the weights are clean again."""
    engine, estimator = optimizer.engine, optimizer.estimator
    steps = engine.evaluation(estimator, step=step, eps=EPS, lr=LR)

    def evaluate(requests: Any) -> Any:
        if requests[0].along is None:
            return (float(net.loss(1.0 + step)),)
        along = requests[0].along
        return loss_and_slope(lambda: net.loss(1.0 + step), engine.slots, engine.sampler, along)

    feedback = drive(steps, evaluate)
    engine.displacement.leave()
    return dict(feedback.channels[GRAD])


def test_momentum_decays_for_queries_alone() -> None:
    """A way back along a projection's or an old law's direction is no query: m decays K times."""
    for name, queries in (("projections", 3), ("hizoo", 1), ("hizoo released", 1)):
        net = Net()
        optimizer = optimizer_of(name, net)
        for _ in range(2):
            optimizer.step(net.loss)
        before = [slot.buffers["momentum"].clone() for slot in optimizer.engine.slots]
        with no_slope(optimizer.estimator):
            for _ in range(2):  # one of them with a projection
                optimizer.step(net.loss)
        for slot, m in zip(optimizer.engine.slots, before, strict=True):
            torch.testing.assert_close(slot.buffers["momentum"], m * BETA ** (2 * queries))


@contextmanager
def no_slope(estimator: Estimator) -> Iterator[None]:
    """All coefficients of the gradient are 0; everything else stays."""
    estimate = estimator.estimate

    def flat(step: Any) -> Any:
        feedback = yield from estimate(step)
        grad = dict.fromkeys(feedback.channels[GRAD], 0.0)
        return type(feedback)(feedback.loss, {**feedback.channels, GRAD: grad})

    estimator.estimate = flat  # type: ignore[method-assign]
    yield
    del estimator.estimate


def test_every_estimator_of_several_queries_is_among_these() -> None:
    """A new file in the folder has to join."""
    made = {type(make()) for make in SEVERAL.values()} | {type(ALL["projections"][1]())}
    for module in pkgutil.iter_modules(estimators.__path__):
        found = vars(import_module(f"{estimators.__name__}.{module.name}")).values()
        for kind in found:
            if isinstance(kind, type) and issubclass(kind, Estimator) and kind not in made:
                fixed = getattr(kind, "directions", None) is not None or kind is Estimator
                assert fixed or MOVE in kind.gives, f"{kind.__name__} may ask for several"
