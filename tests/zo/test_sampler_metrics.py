"""What samplers say of their learnt state: a walk that learns nothing has ratio 1."""

import math
import random
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from zobench.zo.estimators.base import Estimator
from zobench.zo.estimators.best_of_k import BestOfK
from zobench.zo.estimators.rloo import RLOO
from zobench.zo.estimators.two_sided import TwoSided
from zobench.zo.optimizer import ZOOptimizer
from zobench.zo.rules.sgd import SGD
from zobench.zo.samplers.base import Sampler
from zobench.zo.samplers.cone import Cone
from zobench.zo.samplers.gaussian import Gaussian
from zobench.zo.samplers.learned_mean import LearnedMean
from zobench.zo.samplers.rank_one_curvature import RankOneCurvature
from zobench.zo.samplers.tensor_inclusion import TensorInclusion
from zobench.zo.samplers.tensor_subset import TensorSubset

CPU = torch.device("cpu")
Make = Callable[[], Sampler]
mean = partial(LearnedMean, gamma_mu=0.01)
cone = partial(Cone, steps=100, theta=1.5, beta=0.99)
rank_one = partial(RankOneCurvature, eps=1.0, lr_cov=1e-4)
MEANS: dict[str, tuple[Make, Callable[[], Estimator]]] = {
    "mean": (mean, lambda: BestOfK(candidates=4)),
    "unit mean": (lambda: mean(init="unit"), lambda: BestOfK(candidates=4)),
    "subset": (lambda: TensorSubset(mean(sigma=2.0), share=0.5), lambda: BestOfK(candidates=4)),
    "cone": (cone, TwoSided),
    "cone from zero": (lambda: cone(init="zero", norm="exact"), TwoSided),
}
CURVATURES: dict[str, tuple[Make, Callable[[], Estimator]]] = {
    "rows": (rank_one, lambda: RLOO(queries=4)),
    "tiled": (lambda: rank_one(form="tiled"), lambda: RLOO(queries=4)),
}
EVERYTHING = MEANS | CURVATURES


def optimizer_of(name: str, seed: int = 0) -> ZOOptimizer:
    """Two frozen tensors, 209 elements."""
    sampler, estimator = EVERYTHING[name]
    shapes = {"matrix": (20, 10), "vector": (9,)}
    return ZOOptimizer(
        [(n, nn.Parameter(torch.zeros(s, dtype=torch.float64))) for n, s in shapes.items()],
        lr=0.0,
        eps=1.0,
        seed=seed,
        sampler=sampler(),
        estimator=estimator(),
        rule=SGD(),
    )


def linear(optimizer: ZOOptimizer) -> float:
    """A loss with the same slope for every element."""
    return sum(float(slot.flat.sum()) for slot in optimizer.engine.slots)


@pytest.mark.laws
@pytest.mark.parametrize("name", EVERYTHING)
def test_a_state_that_learns_from_noise_walks(name: str) -> None:
    """Losses that know nothing of the point: the ratio's mean square over 8 runs is 1."""
    squares = []
    for seed in range(8):
        optimizer = optimizer_of(name, seed)
        losses = random.Random(seed)
        for _ in range(100):
            optimizer.step(lambda losses=losses: losses.gauss(0.0, 1.0))  # type: ignore[misc]
        squares.append(optimizer.engine.sampler.metrics()["state_over_walk"] ** 2)
    assert sum(squares) / len(squares) == pytest.approx(1, abs=0.12)


@pytest.mark.parametrize("name", MEANS)
def test_a_mean_that_learns_leaves_the_walk_behind(name: str) -> None:
    """On a fixed gradient the ratio grows and is above 1.25 after 300 steps."""
    optimizer = optimizer_of(name)
    ratios = []
    for _ in range(2):
        for _ in range(150):
            optimizer.step(partial(linear, optimizer))
        ratios.append(optimizer.engine.sampler.metrics()["state_over_walk"])
    assert ratios[1] > 1.25
    assert ratios[1] > ratios[0] or "cone" in name  # the cone forgets: it has a steady state


@pytest.mark.parametrize("name", EVERYTHING)
def test_the_norm_is_that_of_the_state(name: str) -> None:
    """state_norm is the length of mu, of m (propagated: to 15 %) or of a, over the whole model."""
    optimizer = optimizer_of(name)
    for _ in range(30):
        optimizer.step(partial(linear, optimizer))
    sampler = optimizer.engine.sampler
    square = 0.0
    for slot in optimizer.engine.slots:
        mean = sampler.mean_direction(slot)
        if mean is None:
            square += float(slot.buffers["curvature"].square().sum())
        else:
            square += float(mean.draw(0, slot.numel, CPU).square().sum())
    rel = 0.15 if name == "cone" else 1e-6
    assert sampler.metrics()["state_norm"] == pytest.approx(math.sqrt(square), rel=rel)


@pytest.mark.parametrize("name", ["mean", "subset"])
def test_the_learnt_mean_points_down_the_slope(name: str) -> None:
    """The mean direction is mu, which noise is put around, and mu points against the gradient."""
    optimizer = optimizer_of(name)
    for _ in range(100):
        optimizer.step(partial(linear, optimizer))
    sampler = optimizer.engine.sampler
    for slot in optimizer.engine.slots:
        mean = sampler.mean_direction(slot)
        assert mean is not None
        mu: Tensor = mean.draw(0, slot.numel, CPU)
        assert torch.equal(mu, slot.buffers["learned_mean"])
        assert torch.equal(mean.draw(2, 5, CPU), mu[2:7])
        assert float(mu.sum()) < -0.5 * float(mu.norm()) * math.sqrt(slot.numel)


def test_laws_that_learn_no_mean_have_none() -> None:
    """No mean for plain noise and for curvatures; their metrics are empty or the budget."""
    slot = optimizer_of("rows").engine.slots[0]
    for sampler in (Gaussian(), TensorSubset(Gaussian()), TensorInclusion(), rank_one()):
        assert sampler.mean_direction(slot) is None
    assert Gaussian().metrics() == {}
    assert TensorSubset(Gaussian()).metrics() == {}
    assert TensorInclusion(ratio=0.25).metrics() == {"budget": 0.25}


@pytest.mark.parametrize("name", EVERYTHING)
def test_metrics_outlive_an_interruption(name: str) -> None:
    """A run that was saved and loaded reports what an uninterrupted one does."""
    optimizer, other = optimizer_of(name), optimizer_of(name)
    for _ in range(5):
        optimizer.step(partial(linear, optimizer))
    other.load_state_dict(optimizer.state_dict())
    for _ in range(2):
        assert other.engine.sampler.metrics() == optimizer.engine.sampler.metrics()
        optimizer.step(partial(linear, optimizer))
        other.step(partial(linear, other))


@pytest.mark.parametrize("name", ["mean", "rows"])
def test_without_learning_there_is_no_ratio(name: str) -> None:
    """Before anything has moved only the norm is known."""
    assert optimizer_of(name).engine.sampler.metrics().keys() == {"state_norm"}
