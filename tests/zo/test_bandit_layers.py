"""AdaLeZO: how layers are drawn, that the estimate is unbiased, and what the bandit learns."""

from itertools import product

import pytest
import torch
from torch import Tensor, nn

from zobench.zo.directions import Drawn
from zobench.zo.estimators.two_sided import TwoSided
from zobench.zo.feedback import GRAD, Key
from zobench.zo.optimizer import ZOOptimizer
from zobench.zo.rules.sgd import SGD
from zobench.zo.samplers.bandit_layers import BanditLayers
from zobench.zo.samplers.base import ReplayClass
from zobench.zo.samplers.gaussian import Gaussian

CPU = torch.device("cpu")
SIZES = {"embed.weight": 3, "layers.0.weight": 4, "layers.0.bias": 2, "layers.1.weight": 5}
LAYER = {"embed.weight": 0, "layers.0.weight": 1, "layers.0.bias": 1, "layers.1.weight": 2}
GRADIENT = {name: torch.linspace(-1.0, 2.0, n, dtype=torch.float64) for name, n in SIZES.items()}


def optimizer_of(sampler: BanditLayers, lr: float = 0.1, queries: int = 1) -> ZOOptimizer:
    named = [(name, nn.Parameter(torch.zeros(n, dtype=torch.float64))) for name, n in SIZES.items()]
    parts = {"sampler": sampler, "estimator": TwoSided(queries=queries), "rule": SGD()}
    return ZOOptimizer(named, lr=lr, eps=1.0, seed=3, **parts)  # type: ignore[arg-type]


def loss_of(optimizer: ZOOptimizer) -> float:
    """A linear function: its central difference is the slope exactly."""
    return sum(float(slot.flat @ GRADIENT[slot.name]) for slot in optimizer.engine.slots)


def weights_of(optimizer: ZOOptimizer) -> dict[str, Tensor]:
    return {slot.name: slot.flat.clone() for slot in optimizer.engine.slots}


@pytest.mark.parametrize("queries", [1, 3])
def test_steps_are_those_of_a_dense_reference(queries: int) -> None:
    """Weights, values and probabilities of 30 steps, from plain tensors and the stated formulas."""
    sampler = BanditLayers(Gaussian(), draws=2, explore=0.4, rate=0.2)
    optimizer = optimizer_of(sampler, queries=queries)
    ids = {slot.name: slot.id for slot in optimizer.engine.slots}
    weights = weights_of(optimizer)
    values, scale = [1.0, 1.0, 1.0], 0.0
    for step in range(30):
        chances = [0.6 * v / sum(values) + 0.4 / 3 for v in values]
        optimizer.step(lambda: loss_of(optimizer))
        assert sampler.probabilities == pytest.approx(chances, rel=1e-12)
        counts = list(sampler.counts)
        assert sum(counts) == 2
        size = 0.0
        for query in range(queries):
            z = {
                name: Drawn.normal(Key(3, step, query), ids[name]).draw(0, n, CPU).double()
                * (counts[LAYER[name]] > 0)
                for name, n in SIZES.items()
            }
            slope = sum(float(z[name] @ GRADIENT[name]) for name in SIZES) / queries
            size += abs(slope)
            for name in SIZES:
                share = counts[LAYER[name]] / (2 * chances[LAYER[name]])
                weights[name] = weights[name] - 0.1 * slope * share * z[name]
        scale = 0.8 * scale + 0.2 * size
        for layer in range(3):
            if counts[layer]:
                values[layer] = 0.8 * values[layer] + 0.2 * size / scale
        for name, weight in weights_of(optimizer).items():
            torch.testing.assert_close(weight, weights[name], rtol=1e-6, atol=1e-9)
        assert sampler.values == pytest.approx(values, rel=1e-6)


def test_the_weights_make_any_draw_unbiased() -> None:
    """Summed over all outcomes of k draws with their probabilities, E[n_l / (k p_l)] = 1."""
    sampler = BanditLayers(Gaussian(), draws=3, explore=0.2)
    optimizer = optimizer_of(sampler)
    sampler.values = [0.2, 1.0, 7.0]
    sampler.begin_step(0)
    chances = list(sampler.probabilities)
    assert sum(chances) == pytest.approx(1.0)
    expected = dict.fromkeys(SIZES, 0.0)
    for outcome in product(range(3), repeat=3):
        sampler.counts = [outcome.count(layer) for layer in range(3)]
        chance = chances[outcome[0]] * chances[outcome[1]] * chances[outcome[2]]
        for slot in optimizer.engine.slots:
            expected[slot.name] += chance * sampler.weight(slot)
    assert list(expected.values()) == pytest.approx([1.0] * len(SIZES))


def test_layers_are_drawn_as_often_as_their_probabilities_say() -> None:
    """Over 3,000 steps of four draws, within five standard errors; draws of a step may repeat."""
    sampler = BanditLayers(Gaussian(), draws=4, explore=0.1)
    optimizer_of(sampler)
    sampler.values = [1.0, 2.0, 5.0]
    drawn = torch.zeros(3)
    for step in range(3000):
        sampler.begin_step(step)
        drawn += torch.tensor(sampler.counts)
    chances = torch.tensor(sampler.probabilities)
    error = (chances * (1 - chances) / 12_000).sqrt()
    assert ((drawn / 12_000 - chances).abs() < 5 * error).all()


def test_a_layer_that_is_not_drawn_keeps_its_bits() -> None:
    """Only the drawn layers move, all tensors of a layer together."""
    optimizer = optimizer_of(sampler := BanditLayers(Gaussian(), draws=1))
    for _ in range(20):
        before = weights_of(optimizer)
        optimizer.step(lambda: loss_of(optimizer))
        moved = {n for n, w in weights_of(optimizer).items() if not torch.equal(w, before[n])}
        assert moved == {name for name in SIZES if sampler.counts[LAYER[name]]}


def test_the_bandit_finds_the_layer_that_matters() -> None:
    """One layer has a gradient: at lr 0 it ends with the largest probability, above an even one."""
    sampler = BanditLayers(Gaussian(), draws=1, explore=0.3)
    optimizer = optimizer_of(sampler, lr=0.0)
    slots = {slot.name: slot for slot in optimizer.engine.slots}
    for _ in range(200):
        optimizer.step(lambda: float(slots["layers.1.weight"].flat.sum()))
    assert sampler.probabilities[2] > 0.75
    assert sampler.metrics() == {"largest_share": pytest.approx(3 * sampler.probabilities[2])}


def test_nothing_is_learnt_from_steps_without_a_slope() -> None:
    """A constant loss leaves the values as they are: there is no average to compare with."""
    optimizer = optimizer_of(sampler := BanditLayers(Gaussian()))
    for _ in range(3):
        optimizer.step(lambda: 1.0)
    assert sampler.values == [1.0, 1.0, 1.0]


def test_the_state_is_a_few_numbers_and_comes_back() -> None:
    """A saved and restored optimizer takes the same steps; no slot has a buffer."""
    first = optimizer_of(BanditLayers(Gaussian(), draws=2))
    for _ in range(5):
        first.step(lambda: loss_of(first))
    second = optimizer_of(BanditLayers(Gaussian(), draws=2))
    second.load_state_dict(first.state_dict())
    for slot, other in zip(second.engine.slots, first.engine.slots, strict=True):
        slot.flat.copy_(other.flat)
    for optimizer in (first, second):
        for _ in range(5):
            optimizer.step(lambda optimizer=optimizer: loss_of(optimizer))  # type: ignore[misc]
    assert all(map(torch.equal, weights_of(first).values(), weights_of(second).values()))
    assert not any(slot.buffers for slot in first.engine.slots)
    assert first.engine.sampler.replay_class is ReplayClass.STATE
    assert GRAD in first.engine.sampler.needs


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"draws": 0}, r"sampler\.draws=0: must be at least 1"),
        ({"explore": 0.0}, r"sampler\.explore=0\.0: must be in \(0, 1\]"),
        ({"rate": 1.5}, r"sampler\.rate=1\.5: must be in \(0, 1\]"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, float], said: str) -> None:
    """Without exploration a layer of value 0 would never be drawn, and its weight be infinite."""
    with pytest.raises(ValueError, match=said):
        BanditLayers(Gaussian(), **settings)  # type: ignore[arg-type]
