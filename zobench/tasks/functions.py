"""Test functions of a vector, for `zobench.tasks.function.Function`."""

import torch
from torch import Tensor

from zobench.errors import UserError


def rosenbrock(x: Tensor) -> Tensor:
    """sum of 100 (x_{i+1} - x_i^2)^2 + (1 - x_i)^2; least, 0, at (1, ..., 1)."""
    return (100.0 * (x[1:] - x[:-1].square()).square() + (1.0 - x[:-1]).square()).sum()


def monkey_saddle(x: Tensor) -> Tensor:
    """x^3 - 3 x y^2 + (x^2 + y^2)^2 / 4: gradient and Hessian vanish at the origin.

    The quartic gives the way out an end: three minima of -6.75 at distance 3.
    """
    a, b = _pair(x, "monkey_saddle")
    return a**3 - 3.0 * a * b**2 + (a.square() + b.square()).square() / 4.0


def linear(x: Tensor) -> Tensor:
    """<g, x> with the unit gradient g = (1, ..., 1) / sqrt(d) everywhere; without a minimum."""
    return x.sum() / x.numel() ** 0.5


def misalignment(x: Tensor) -> Tensor:
    """-cos^2 of x with the first axis: the loss is minus LDSD's reward C (arXiv 2602.13659).

    At 0, which has no direction, the mean over all directions: -1/d.
    """
    square = x.square().sum()
    safe = torch.where(square > 0.0, square, 1.0)
    return torch.where(square > 0.0, -x[0].square() / safe, -1.0 / x.numel())


def ldsd_landscape(x: Tensor) -> Tensor:
    """1 - E[C] over the mean mu of LDSD's law in two dimensions (its figure 1), sigma = 1.

    v ~ N(mu, I), C = cos^2 of v with the first axis. In closed form E[C] = cos^2(phi) (1 - 2 beta)
    + beta with beta = (1 - exp(-|mu|^2 / 2)) / |mu|^2 and phi the angle of mu; 1/2 at mu = 0.
    """
    a, b = _pair(x, "ldsd_landscape")
    square = a.square() + b.square()
    safe = torch.where(square > 1e-12, square, 1.0)
    beta = torch.where(square > 1e-12, -torch.expm1(-safe / 2.0) / safe, 0.5)
    return 1.0 - (a.square() / safe * (1.0 - 2.0 * beta) + beta)


def _pair(x: Tensor, name: str) -> tuple[Tensor, Tensor]:
    if x.numel() != 2:
        raise UserError(f"task.shapes: {name} is a function of 2 coordinates, not {x.numel()}")
    return x[0], x[1]
