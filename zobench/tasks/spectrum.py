"""Curvature of the quadratic task: per tensor, the map x -> H x."""

from collections.abc import Callable, Sequence
from math import prod

import numpy as np
import torch
from torch import Tensor

Curvature = Callable[[Tensor], Tensor]


def geometric(shapes: Sequence[Sequence[int]], condition: float, seed: int) -> list[Curvature]:
    """Diagonal, in equal ratios from 1 / condition at the first coordinate to 1 at the last."""
    del seed
    sizes = [prod(shape) for shape in shapes]
    values = torch.logspace(-float(np.log10(condition)), 0.0, sum(sizes), dtype=torch.float64)
    parts = values.split(sizes)
    return [_scaled(part.reshape(tuple(s))) for part, s in zip(parts, shapes, strict=True)]


def tensors(shapes: Sequence[Sequence[int]], condition: float, seed: int) -> list[Curvature]:
    """One curvature per tensor, log-uniform in [1 / condition, 1]."""
    exponents = np.random.default_rng([seed, 1]).uniform(-np.log(condition), 0.0, len(shapes))
    return [_scaled(torch.tensor(float(np.exp(e)))) for e in exponents]


def columns(shapes: Sequence[Sequence[int]], condition: float, seed: int) -> list[Curvature]:
    """H = I kron A per matrix: 1 along one random direction of the columns, else 1 / condition."""
    random = np.random.default_rng([seed, 1])
    found: list[Curvature] = []
    for shape in shapes:
        axis = torch.from_numpy(random.standard_normal(shape[-1]))
        found.append(_stiff(axis / axis.norm(), 1.0 / condition))
    return found


def _scaled(values: Tensor) -> Curvature:
    return lambda x: values.to(x.device) * x


def _stiff(axis: Tensor, soft: float) -> Curvature:
    def curvature(x: Tensor) -> Tensor:
        e = axis.to(x)
        return soft * x + (1.0 - soft) * (x @ e).unsqueeze(-1) * e

    return curvature
