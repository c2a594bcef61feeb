"""What methods keep beside 16-bit weights, in bytes per parameter, as the literature has it."""

import functools
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import nn

from zobench.build import build_optimizer
from zobench.schema import composed
from zobench.zo.optimizer import ZOOptimizer

ROWS, COLUMNS = 64, 1024
# In place. What the papers' codes keep in the weights' dtype and we in float32, because a 16-bit
# sum of many small terms stops growing: momentum, Adam's moments, LDSD's mean, HiZOO's diagonal.
KEPT = {
    "mezo": 0.0,
    "zo_sign_mean": 0.0,
    "mezo_momentum": 4.0,
    "mezo_adam": 8.0,
    "conmezo": 2.0,
    "curvzo": 0.0,
    "hizoo": 4.0,
    "ldsd_sgd": 4.0 + 4.0,
    "loren": 4.0 + 4.0 / ROWS,  # momentum, and a vector as long as a row
    "lozo": 4.0 * 2 / ROWS,  # one factor of rank 2; the other is drawn
}


@functools.cache
def settings_of(row: str, arithmetic: str) -> Mapping[str, Any]:
    node: Mapping[str, Any] = composed(
        f"optimizer={row}", f"arithmetic={arithmetic}", "model=hf", "model.path=none"
    )["optimizer"]
    return node


def kept(row: str, arithmetic: str) -> float:
    """Bytes per parameter after two steps on one bfloat16 matrix."""
    model = nn.Module()
    layer = model.q_proj = nn.Linear(COLUMNS, ROWS, bias=False, dtype=torch.bfloat16)
    with torch.no_grad():
        layer.weight.fill_(0.5)
    node = {**settings_of(row, arithmetic), "lr": 1e-6}
    optimizer = build_optimizer(node, list(model.named_parameters()), model)
    assert isinstance(optimizer, ZOOptimizer)
    inputs = torch.linspace(-1, 1, 2 * COLUMNS).view(2, COLUMNS).bfloat16()
    for _ in range(2):
        optimizer.step(lambda: layer(inputs).float().square().mean())
    held = [b for slot in optimizer.engine.slots for b in slot.buffers.values()]
    return sum(b.nbytes for b in held) / (ROWS * COLUMNS)


@pytest.mark.parametrize("row", KEPT)
def test_state_is_what_the_table_says(row: str) -> None:
    """The bytes of the table in place; two more, the remainder, where updates lose nothing."""
    expected = KEPT[row]
    assert kept(row, "inplace") == pytest.approx(expected)
    assert kept(row, "exact") == pytest.approx(expected + 2.0)
