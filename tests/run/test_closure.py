"""One optimizer step as a function of the batch, whether it back-propagates or not."""

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from zobench.build import build
from zobench.run.closure import CountedLoss, state_bytes
from zobench.run.steps import step_of
from zobench.tasks.batch import Batch, collate
from zobench.tasks.encoding import Candidate, Encoded
from zobench.zo.engine import Diverged

PAIR = Encoded((Candidate((2, 3, 4), (5,)), Candidate((2, 3, 4), (6,))), 0)
BATCH = collate([PAIR, PAIR], 1, 64)


class Model(nn.Module):
    """Eleven weights; the loss is half of their squared norm times `factor`, plus `offset`."""

    def __init__(self) -> None:
        super().__init__()
        self.matrix = nn.Parameter(torch.arange(1.0, 9.0).reshape(2, 4))
        self.vector = nn.Parameter(torch.tensor([-1.0, 0.5, 2.0]))
        self.offset = 0.0

    def weights(self) -> Tensor:
        return torch.cat([self.matrix.detach().flatten(), self.vector.detach()])


def half_square(model: Model, batch: Batch) -> Tensor:
    """A convex loss whose gradient is the weights."""
    assert batch is BATCH
    total = model.matrix.square().sum() + model.vector.square().sum()
    return 0.5 * total + model.offset


@pytest.fixture
def model() -> Model:
    """Fresh weights for each test."""
    return Model()


@pytest.fixture
def zeroth_order(compose: Callable[..., dict[str, Any]], model: Model) -> torch.optim.Optimizer:
    """MeZO as it is configured."""
    optimizer: torch.optim.Optimizer = build(
        compose("optimizer=mezo", "optimizer.lr=1e-3")["optimizer"]
    )(model.named_parameters())
    return optimizer


FIRST_ORDER: dict[str, Callable[[Model], torch.optim.Optimizer]] = {
    "sgd": lambda model: torch.optim.SGD(model.parameters(), lr=0.1),
    "momentum": lambda model: torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9),
    "adamw": lambda model: torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.1),
}


def test_a_first_order_step_follows_the_gradient_of_this_batch_alone(model: Model) -> None:
    """Each step starts without the gradient of the last; the loss is that before the step."""
    step = step_of(FIRST_ORDER["sgd"](model), CountedLoss(model, half_square))
    for _ in range(3):
        before = model.weights()
        assert step(BATCH) == pytest.approx(0.5 * float(before.square().sum()))
        torch.testing.assert_close(model.weights(), 0.9 * before)


@pytest.mark.parametrize("name", FIRST_ORDER)
@pytest.mark.parametrize("offset", [math.nan, math.inf, -math.inf])
def test_a_first_order_step_leaves_the_weights_alone_when_the_loss_is_not_finite(
    name: str, offset: float, model: Model
) -> None:
    """Weights and optimizer state are those before the step, and there is no gradient."""
    optimizer = FIRST_ORDER[name](model)
    step = step_of(optimizer, CountedLoss(model, half_square))
    step(BATCH)
    before, state = model.weights(), copy.deepcopy(optimizer.state_dict())
    model.offset = offset
    with pytest.raises(Diverged, match=f"the loss is {offset}"):
        step(BATCH)
    assert torch.equal(model.weights(), before)
    assert repr(optimizer.state_dict()) == repr(state)
    assert all(p.grad is None for p in model.parameters())


def test_a_zeroth_order_step_evaluates_without_gradients(
    model: Model, zeroth_order: torch.optim.Optimizer
) -> None:
    """Two forwards for MeZO, no graph in either, no gradient afterwards."""
    graphs: list[bool] = []

    def watched(model: Model, batch: Batch) -> Tensor:
        loss = half_square(model, batch)
        graphs.append(loss.requires_grad)
        return loss

    loss = CountedLoss(model, watched)
    before = model.weights()
    value = step_of(zeroth_order, loss)(BATCH)
    assert isinstance(value, float)
    assert graphs == [False, False]
    assert loss.forwards == 2
    assert not torch.equal(model.weights(), before)
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("offset", [math.nan, math.inf])
def test_a_zeroth_order_step_restores_the_weights_when_a_loss_is_not_finite(
    offset: float, model: Model, zeroth_order: torch.optim.Optimizer
) -> None:
    """To the rounding of the walk there and back; the step does not count."""
    before = model.weights()
    model.offset = offset
    with pytest.raises(Diverged):
        step_of(zeroth_order, CountedLoss(model, half_square))(BATCH)
    torch.testing.assert_close(model.weights(), before, rtol=0.0, atol=1e-6)


def test_forwards_and_tokens_are_counted_where_the_loss_is_evaluated(model: Model) -> None:
    """Every call counts, one whose loss is not finite too: it was paid for."""
    loss = CountedLoss(model, half_square)
    assert (loss.forwards, loss.tokens) == (0, 0)
    loss(BATCH)
    loss(BATCH)
    model.offset = math.nan
    loss(BATCH)
    assert loss.forwards == 3
    assert loss.tokens == 3 * BATCH.tokens == 18


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("sgd", 11 * 4),  # gradients
        ("momentum", 11 * 4 * 2),
        ("adamw", 11 * 4 * 3 + 2 * 4),  # and one step counter per parameter
    ],
)
def test_state_of_a_first_order_optimizer_is_counted_with_gradients(
    name: str, expected: int, model: Model
) -> None:
    """Nothing before the first step; then all that stays between steps, in bytes."""
    optimizer = FIRST_ORDER[name](model)
    assert state_bytes(optimizer) == 0
    step_of(optimizer, CountedLoss(model, half_square))(BATCH)
    assert state_bytes(optimizer) == expected


def test_mezo_keeps_nothing_between_steps(
    model: Model, zeroth_order: torch.optim.Optimizer
) -> None:
    """Directions are drawn again, never stored; momentum keeps one buffer per weight."""
    step_of(zeroth_order, CountedLoss(model, half_square))(BATCH)
    assert state_bytes(zeroth_order) == 0


def test_zeroth_order_momentum_keeps_one_buffer(
    model: Model, compose: Callable[..., dict[str, Any]]
) -> None:
    """As large as the weights."""
    optimizer = build(compose("optimizer=mezo_momentum")["optimizer"])(model.named_parameters())
    step_of(optimizer, CountedLoss(model, half_square))(BATCH)
    assert state_bytes(optimizer) == 11 * 4
