"""Gaussian transforms on a GPU: the time of one pass over a vector with each of them."""

import statistics
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch

from zobench.bench.clock import seconds_of
from zobench.zo.passes.gpu import upper_quantiles

WAYS = (
    "normal16 (table)",
    "rademacher",
    "normal (Box-Muller to 1e-6)",
    "Box-Muller, fast functions",
    "sum of 4 bytes",
    "count of 32 bits",
)
_BLOCKS = 4


def race(
    device: torch.device, parameters: int, dtypes: tuple[torch.dtype, ...], rounds: int
) -> Iterator[dict[str, Any]]:
    """A row for each way and dtype: medians of `rounds` passes, and the moments of a sample.

    A pass reads and writes each number once, so that GB/s can be held against the card's memory.
    """
    for dtype in dtypes:
        for kind, name in enumerate(WAYS):
            out = torch.zeros(parameters, dtype=dtype, device=device)
            add(out, kind, 1.0, key=1)
            sample = out[: 1 << 22].double()
            passes = (partial(add, out, kind, 1e-3, key=number) for number in range(rounds))
            elapsed = statistics.median_high(seconds_of(once, device) for once in passes)
            yield {
                "law": name,
                "storage": str(dtype).removeprefix("torch."),
                "ns per parameter": elapsed / parameters * 1e9,
                "GB/s": 2 * parameters * dtype.itemsize / elapsed / 1e9,
                "mean": float(sample.mean()),
                "variance": float(sample.var()),
                "kurtosis": float(sample.pow(4).mean() / sample.square().mean() ** 2),
            }


def add(out: torch.Tensor, kind: int, scale: float, key: int) -> None:
    """out += scale * z in one launch; kind: a place in WAYS."""
    from zobench.bench import triton_gaussians

    programs = -(-out.numel() // (_BLOCKS * 1024))
    given = out, out.numel(), key, scale, upper_quantiles(out.device)
    fast = out.device.type == "cuda"
    triton_gaussians.add[(programs,)](*given, KIND=kind, FAST=fast, BLOCKS=_BLOCKS)
