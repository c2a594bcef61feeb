"""The drift of 16-bit weights: `python -m zobench.bench.numerics`.

A matrix of 128 x 128 weights ~ N(0, 0.03^2) takes 1,000 MeZO steps with eps 1e-3 whose losses are
made up so that lr * coefficient ~ N(0, s^2), once with s = 0 and once with s = 1e-6. Printed for
each storage and arithmetic: the relative change of the weights after steps without updates,
|W - W0| / |W0|, and for the others the cosine between the change of the weights and the intended
change, and the gain, the share of the intended change that was made. Sums in float64.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from zobench.bench.plain import PlainMeZO
from zobench.zo.arithmetic import Arithmetic
from zobench.zo.directions import Drawn
from zobench.zo.estimators.two_sided import TwoSided
from zobench.zo.optimizer import ZOOptimizer
from zobench.zo.rules.sgd import SGD
from zobench.zo.samplers.gaussian import Gaussian

SIDE, STEPS, EPS, LR = 128, 1000, 1e-3, 1e-6
DTYPES = (torch.float32, torch.float16, torch.bfloat16)
ARITHMETICS = (
    ("in place, nearest", {"walk": "inplace", "rounding": "nearest"}),
    ("in place, compensated", {"walk": "inplace", "rounding": "compensated"}),
    ("scratch, stochastic", {"walk": "scratch", "rounding": "stochastic"}),
)


class Kept(NamedTuple):
    """The change of the weights after 1,000 steps: its size and direction."""

    drift: float
    cosine: float
    gain: float


def weights_in(dtype: torch.dtype) -> nn.Linear:
    """The initial layer of all measurements."""
    layer = nn.Linear(SIDE, SIDE, bias=False)
    weights = torch.randn(SIDE, SIDE, generator=torch.Generator().manual_seed(0)) * 0.03
    layer.weight.data = weights.to(dtype)
    return layer


def sizes(scale: float) -> list[float]:
    """Every step's coefficient."""
    drawn = torch.randn(STEPS, generator=torch.Generator().manual_seed(1))
    return (drawn * scale / LR).tolist()


def ours(dtype: torch.dtype, arithmetic: dict[str, str], scale: float) -> Kept:
    """zobench's steps with updates of that scale."""
    layer = weights_in(dtype)
    parts: dict[str, Any] = {"sampler": Gaussian(), "estimator": TwoSided(), "rule": SGD()}
    parts["arithmetic"] = Arithmetic(**arithmetic)
    optimizer = ZOOptimizer(layer.named_parameters(), lr=LR, eps=EPS, **parts)
    [slot] = optimizer.engine.slots
    start, intended = slot.flat.double(), torch.zeros(SIDE * SIDE, dtype=torch.float64)
    for step, size in enumerate(sizes(scale)):
        losses = iter((size * EPS, -size * EPS))
        optimizer.step(partial(next, losses))
        z = Drawn.normal((0, step, 0), slot.id).draw(0, SIDE * SIDE, slot.flat.device)
        intended -= LR * size * z.double()
    end = slot.rounding.widen(slot.flat, slice(0, SIDE * SIDE)).double()
    return kept(start, end, intended)


def theirs(dtype: torch.dtype, scale: float) -> Kept:
    """The four passes of MeZO's code."""
    layer = weights_in(dtype)
    start = layer.weight.detach().flatten().double()
    plain = PlainMeZO(layer.named_parameters(), lr=LR, eps=EPS)
    intended = torch.zeros_like(start)
    for size in sizes(scale):
        losses = iter((torch.tensor(size * EPS), torch.tensor(-size * EPS)))
        plain.step(partial(next, losses))
        generator = torch.Generator().manual_seed(plain.zo_seed)
        z = torch.normal(0.0, 1.0, (SIDE, SIDE), generator=generator, dtype=dtype)
        intended -= LR * plain.projected_grad * z.flatten().double()
    return kept(start, layer.weight.detach().flatten().double(), intended)


def kept(start: Tensor, end: Tensor, intended: Tensor) -> Kept:
    """Cosine and gain are NaN where nothing was intended."""
    moved = end - start
    drift = float(moved.norm() / start.norm())
    length = float(intended.norm())
    if not length:
        return Kept(drift, math.nan, math.nan)
    along = float(moved @ intended)
    return Kept(drift, along / float(moved.norm()) / length, along / length**2)


def main() -> None:
    print(f"{STEPS} steps of a {SIDE} x {SIDE} matrix, eps {EPS:g}")
    print("| storage | arithmetic | drift without updates | cosine at 1e-6 | gain |")
    print("| --- | --- | ---: | ---: | ---: |")
    for dtype in DTYPES:
        ways: dict[str, Callable[[float], Kept]] = {"MeZO's code": partial(theirs, dtype)}
        for name, arithmetic in ARITHMETICS if dtype.itemsize < 4 else ARITHMETICS[:1]:
            ways[name] = partial(ours, dtype, arithmetic)
        for name, way in ways.items():
            still, moving = way(0.0), way(1e-6)
            storage = str(dtype).removeprefix("torch.")
            found = f"{still.drift:.1e} | {moving.cosine:.4f} | {moving.gain:.3f}"
            print(f"| {storage} | {name} | {found} |")


if __name__ == "__main__":
    main()
