"""Populations of low-rank directions in one forward, without a copy of the weights."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.small_models import small_model
from zobench.build import build
from zobench.interface import Interface
from zobench.models.loaded import LoadedModel
from zobench.schema import composed
from zobench.zo import batched_points
from zobench.zo.estimators.rloo import RLOO
from zobench.zo.estimators.two_sided import TwoSided
from zobench.zo.estimators.z_scored import ZScored
from zobench.zo.optimizer import ZOOptimizer
from zobench.zo.rules.sgd import SGD
from zobench.zo.samplers.base import Sampler
from zobench.zo.samplers.fresh_low_rank import FreshLowRank
from zobench.zo.samplers.gaussian import Gaussian
from zobench.zo.samplers.lazy_low_rank import LazyLowRank

LAWS: list[Callable[[], Sampler]] = [FreshLowRank, lambda: FreshLowRank(rank=3), LazyLowRank]


def task_of(kind: str) -> tuple[nn.Module, Callable[[], Tensor]]:
    """A small model, all of whose weights train, and the loss of a batch."""
    settings = composed("task=random_tokens", "task.length=12")
    model = small_model(kind).eval()
    problem = build(settings["task"]).prepare(
        LoadedModel(model, None, Interface.CAUSAL), torch.device("cpu")
    )
    batch = problem.batch([0, 1, 2])
    return model, lambda: problem.loss(model, batch)


def optimizer_of(model: nn.Module, sampler: Sampler, pack: int | None, **more: Any) -> ZOOptimizer:
    parts: dict[str, Any] = {"estimator": ZScored(population=8), "rule": SGD(), "lr": 1e-3}
    return ZOOptimizer(
        model.named_parameters(), sampler=sampler, pack=pack, model=model, eps=1e-2, **parts | more
    )


@pytest.mark.parametrize("make", LAWS)
@pytest.mark.parametrize("kind", ["opt", "gpt2", "llama"])
def test_a_population_has_the_losses_of_its_points(
    kind: str, make: Callable[[], Sampler], monkeypatch: pytest.MonkeyPatch
) -> None:
    """To 1e-5, full tuning, tied embeddings and GPT-2's transposed layers; no matrix is copied."""
    copied: list[tuple[int, ...]] = []
    stack = batched_points.stacked

    def noted(slot: Any, *rest: Any) -> Tensor | None:
        copied.append(tuple(slot.parameter.shape))
        return stack(slot, *rest)

    monkeypatch.setattr(batched_points, "stacked", noted)
    found = []
    for pack in (None, 8, 3):
        model, loss = task_of(kind)
        optimizer = optimizer_of(model, make(), pack)
        for _ in range(3):
            optimizer.step(loss)
        found.append((optimizer.engine.losses, [p.detach() for p in model.parameters()]))
    (alone, ends), *packed = found
    assert max(alone) - min(alone) > 1e-4
    for losses, weights in packed:
        assert losses == pytest.approx(alone, rel=1e-5)
        for one, other in zip(ends, weights, strict=True):
            torch.testing.assert_close(other, one, rtol=0.0, atol=1e-4)
    matrices = {shape for shape in copied if len(shape) > 1}
    assert not matrices or kind == "opt"  # OPT's learnt positions are a layer of their own kind


@pytest.mark.parametrize("estimator", [TwoSided(queries=4), RLOO()])
def test_pairs_and_clean_points_are_evaluated_together(estimator: Any) -> None:
    """Plus, minus and the clean weights, which have no direction, in one call."""
    found = []
    for pack in (None, 6):
        model, loss = task_of("llama")
        optimizer = optimizer_of(model, FreshLowRank(), pack, estimator=estimator)
        optimizer.step(loss)
        found.append(optimizer.engine.losses)
    assert found[1] == pytest.approx(found[0], rel=1e-5)


def test_full_directions_are_refused_and_low_rank_ones_are_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Copies of all weights would outweigh the model; factors do not."""
    monkeypatch.setattr(batched_points, "SMALL", 0)
    model, loss = task_of("llama")
    with pytest.raises(ValueError, match="would outweigh the model"):
        optimizer_of(model, Gaussian(), 8)
    optimizer_of(model, FreshLowRank(), 8).step(loss)
    assert not any(module._forward_hooks for module in model.modules())


def test_a_layer_that_is_used_otherwise_too_is_copied() -> None:
    """A weight that the model also reads outside a layer: factors there would be missed."""

    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Linear(6, 5, bias=False)
            self.own = nn.Module()
            self.own.matrix = self.first.weight

        def loss(self) -> Tensor:
            x = torch.linspace(-1, 1, 12).view(2, 6)
            return (self.first(x) @ self.own.matrix).square().mean()

    found = []
    for pack in (None, 8):
        torch.manual_seed(0)
        model = Odd()
        optimizer = optimizer_of(model, FreshLowRank(), pack)
        optimizer.step(model.loss)
        found.append(optimizer.engine.losses)
    assert found[1] == pytest.approx(found[0], rel=1e-5)
