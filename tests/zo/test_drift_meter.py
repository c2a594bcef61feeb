"""The drift meter: what it says of 16-bit weights that are perturbed in place."""

import copy

import pytest
import torch
from torch import nn

from zobench.zo.arithmetic import Arithmetic
from zobench.zo.estimators.two_sided import TwoSided
from zobench.zo.optimizer import ZOOptimizer
from zobench.zo.rules.adam import Adam
from zobench.zo.rules.sgd import SGD
from zobench.zo.samplers.gaussian import Gaussian
from zobench.zo.samplers.tensor_inclusion import TensorInclusion


def optimizer_of(
    weights: dict[str, nn.Parameter], lr: float, sampler: object = None, rule: object = None
) -> ZOOptimizer:
    return ZOOptimizer(
        weights.items(),
        lr=lr,
        eps=1e-3,
        sampler=sampler or Gaussian(),  # type: ignore[arg-type]
        estimator=TwoSided(),
        rule=rule or SGD(),  # type: ignore[arg-type]
        arithmetic=Arithmetic(walk="inplace"),
    )


def weights_of(dtype: torch.dtype) -> dict[str, nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    shapes = {"a": (150, 70), "b": (9,), "c": (300, 40)}
    made = {n: 0.03 * torch.randn(s, generator=generator) for n, s in shapes.items()}
    return {name: nn.Parameter(w.to(dtype)) for name, w in made.items()}


def take_steps(optimizer: ZOOptimizer, steps: int) -> None:
    for _ in range(steps):  # a slope of 1 along every direction
        optimizer.step(lambda: 1e-3 * (optimizer.engine.forwards % 2 == 0))


@pytest.mark.parametrize("sampler", [Gaussian, TensorInclusion])
def test_the_meter_follows_what_the_updates_mean(sampler: type) -> None:
    """In float32, whose rounding is small, the weights are where the meter has them: cosine 1."""
    weights = weights_of(torch.float32)
    optimizer = optimizer_of(weights, 1e-3, sampler())
    from zobench.zo.drift_meter import DriftMeter

    optimizer.engine.drift = DriftMeter(optimizer.engine.slots)
    take_steps(optimizer, 20)
    found = optimizer.engine.drift.findings()
    assert found["drift/cosine"] > 0.999999
    assert found["drift/relative"] < 1e-5


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_small_updates_are_seen_to_be_lost_in_place(dtype: torch.dtype) -> None:
    """At updates of 1e-6 the way gone is not the way sent; below 1 in spacings, which says so."""
    optimizer = optimizer_of(weights_of(dtype), 1e-6)
    take_steps(optimizer, 50)
    assert optimizer.engine.drift is not None
    found = optimizer.engine.drift.findings()
    assert abs(found["drift/cosine"]) < 0.2
    assert found["drift/update_in_spacings"] < 1.0
    assert found["drift/relative"] > 1e-4
    large = optimizer_of(weights_of(dtype), 1e-2)
    take_steps(large, 5)
    assert large.engine.drift is not None
    assert large.engine.drift.findings()["drift/update_in_spacings"] > 1.0
    assert large.engine.drift.findings()["drift/cosine"] > 0.9


def test_only_16_bit_weights_in_place_are_followed() -> None:
    """Float32 does not drift, and weights that are left clean cannot."""
    assert optimizer_of(weights_of(torch.float32), 1e-3).engine.drift is None
    weights = weights_of(torch.bfloat16)
    parts = {"sampler": Gaussian(), "estimator": TwoSided(), "rule": Adam()}
    exact = ZOOptimizer(weights.items(), lr=1e-3, eps=1e-3, **parts)  # type: ignore[arg-type]
    assert exact.engine.drift is None


def test_the_meter_is_part_of_the_state() -> None:
    """A run that is continued says what the uninterrupted one does."""
    weights = weights_of(torch.bfloat16)
    optimizer = optimizer_of(weights, 1e-5)
    take_steps(optimizer, 3)
    again = optimizer_of(copy.deepcopy(weights), 1e-5)
    again.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    take_steps(optimizer, 3)
    take_steps(again, 3)
    assert optimizer.engine.drift is not None and again.engine.drift is not None
    assert optimizer.engine.drift.findings() == again.engine.drift.findings()
