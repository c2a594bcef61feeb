"""Batches of several runs as rows of one batch: each padded to the longest."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from zobench.errors import UserError
from zobench.tasks.batch import Batch

Tensors = dict[str, Tensor]
_NONE = -1  # no example, no target token
_FILLERS = {"target": _NONE, "example": _NONE}


def side_by_side(
    batches: Sequence[Any], loss: Callable[[Any], Tensor]
) -> tuple[Tensors, Callable[[Mapping[str, Tensor]], Tensor]]:
    """The batches' tensors, stacked, and the loss of a row of them.

    Padding has no effect on a loss: it consists of tokens that the attention mask hides, contexts
    that are not read, and candidates of no example. Raises UserError for batches that are not texts
    in tensors, and for batches of different sizes.
    """
    if not all(isinstance(batch, Batch) for batch in batches):
        raise UserError("this task's batches are not texts in tensors: its runs do not pack")
    if any(batch.alone for batch in batches):
        raise UserError("padding changes a row's outputs in this model: its batches do not pack")
    if len({len(batch.gold) for batch in batches}) > 1:
        raise UserError("batches of different sizes do not pack")
    first = batches[0]
    names = [name for name, value in vars(first).items() if isinstance(value, Tensor)]
    stacks = {n: _stacked([getattr(b, n) for b in batches], _FILLERS.get(n, 0)) for n in names}
    like = replace(first, choices=max(batch.choices for batch in batches))

    def of_row(row: Mapping[str, Tensor]) -> Tensor:
        return loss(replace(like, **row))

    return stacks, of_row


def _stacked(tensors: Sequence[Tensor], filler: int) -> Tensor:
    """Tensors of one kind, each padded at the ends of its dimensions to the longest."""
    shape = [max(sizes) for sizes in zip(*(t.shape for t in tensors), strict=True)]
    alike = []
    for tensor in tensors:
        missing = [most - size for most, size in zip(shape, tensor.shape, strict=True)]
        ends = [number for size in reversed(missing) for number in (0, size)]
        alike.append(pad(tensor, ends, value=filler) if any(missing) else tensor)
    return torch.stack(alike)
