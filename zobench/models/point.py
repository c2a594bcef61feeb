"""A point of R^d in place of a model, for the tasks that are functions of one."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from zobench.errors import UserError
from zobench.models.loaded import LoadedModel


class Point(nn.Module):
    """Tensors to minimise a function over; `tensors` are its parameters, in order."""

    def __init__(self, tensors: Sequence[torch.Tensor]) -> None:
        super().__init__()
        self.x = nn.ParameterList(tensors)

    @property
    def tensors(self) -> list[torch.Tensor]:
        return list(self.x)


def load(
    *, shapes: Sequence[Sequence[int]], start: float | Sequence[float], seed: int = 0
) -> LoadedModel:
    """A float64 point.

    shapes: of its tensors. start: all coordinates, or the length of a random direction to begin at.
    seed: of that direction, drawn by numpy's `RandomState`, the same for every seed of the run.
    """
    sizes = [int(np.prod(shape)) for shape in shapes]
    if not sizes or min(sizes) < 1:
        raise UserError(f"task.shapes={shapes}: give at least one tensor, none of them empty")
    if isinstance(start, int | float):
        direction = np.random.RandomState(seed).randn(sum(sizes))
        flat = direction * (start / np.linalg.norm(direction))
    else:
        flat = np.asarray(start, dtype=np.float64)
        if flat.shape != (sum(sizes),):
            raise UserError(f"task.start: give {sum(sizes)} coordinates or one length")
    parts = torch.from_numpy(flat).split(sizes)
    return LoadedModel(
        Point([p.reshape(s) for p, s in zip(parts, map(tuple, shapes), strict=True)])
    )
