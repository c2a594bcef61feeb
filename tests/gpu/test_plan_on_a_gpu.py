"""Plans for all slots at once, carried out by the Triton pass: the weights of the CPU's pass."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.gpu.interpreted import triton_or_skip
from zobench.zo.estimators.two_sided import TwoSided
from zobench.zo.optimizer import ZOOptimizer
from zobench.zo.passes import gpu
from zobench.zo.rules.adam import Adam
from zobench.zo.rules.momentum import Momentum
from zobench.zo.rules.sgd import SGD
from zobench.zo.samplers.gaussian import Gaussian
from zobench.zo.samplers.rademacher import Rademacher

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def trained(
    device: torch.device,
    sampler: Callable[[], Any],
    rule: Callable[[], Any],
    dtype: torch.dtype = torch.float32,
) -> list[Tensor]:
    """Weights and state after four steps whose losses are made up."""
    shapes = {"a": (7, 300), "b": (300,), "c": (5,), "d": (2, 1024)}
    numbers = torch.linspace(0.5, 1.5, 2100, device=device).to(dtype)
    weights = {
        name: nn.Parameter(numbers[: torch.Size(shape).numel()].view(shape).clone())
        for name, shape in shapes.items()
    }
    optimizer = ZOOptimizer(
        weights.items(), lr=1e-3, eps=1e-2, sampler=sampler(), estimator=TwoSided(), rule=rule()
    )
    for _ in range(4):
        optimizer.step(lambda: 0.05 * optimizer.engine.forwards**1.5)
    assert optimizer.engine.plan._tables is not None
    return [t.cpu() for s in optimizer.engine.slots for t in (s.flat, *s.buffers.values())]


@pytest.mark.parametrize("sampler", [Gaussian, Rademacher])
@pytest.mark.parametrize("rule", [lambda: SGD(weight_decay=0.1), Momentum, Adam])
def test_the_same_plan_gives_the_same_weights_there(
    sampler: Callable[[], Any], rule: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bits of descent and momentum; Adam's square roots to float32's last places."""
    triton_or_skip()
    here = trained(torch.device("cpu"), sampler, rule)
    if DEVICE.type == "cpu":
        monkeypatch.setattr(gpu, "KINDS", {"cpu"})
    launches, launch = 0, gpu.launch

    def counted(*given: Any) -> None:
        nonlocal launches
        launches += 1
        launch(*given)

    monkeypatch.setattr(gpu, "launch", counted)
    there = trained(DEVICE, sampler, rule)
    assert launches == 4 * 3
    for ours, theirs in zip(there, here, strict=True):
        if rule is Adam:
            torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-7)
        else:
            assert torch.equal(ours, theirs)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_pairs_have_the_same_bits_there(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights and remainders of 16 bits, vectors that come back by copy among them."""
    triton_or_skip()
    here = trained(torch.device("cpu"), Gaussian, Momentum, dtype)
    if DEVICE.type == "cpu":
        monkeypatch.setattr(gpu, "KINDS", {"cpu"})
    assert all(map(torch.equal, here, trained(DEVICE, Gaussian, Momentum, dtype)))
