"""The numba back end of znoise v1: noise drawn, or drawn and added, on a CPU vector."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from zobench.zo.noise.blocks import LAWS, compiled, draw_blocks, fill_sixteen_bits
from zobench.zo.noise.law import Law, normal16_table
from zobench.zo.noise.stream import Stream

_u32, _u64, _f32 = np.uint32, np.uint64, np.float32


@compiled
def _add_twice(out, first, second, z):  # type: ignore[no-untyped-def]
    for e in range(_u64(out.shape[0])):
        out[e] = (out[e] + first * z[e]) + second * z[e]


@compiled
def _add(out, law, start, first, second, k0, k1, tensor, stream, table):  # type: ignore[no-untyped-def]
    words, z = np.empty(1024, _u32), np.empty(4096, _f32)
    stop = start + out.shape[0]
    for group in range(start // 4096 * 4096, stop, 4096):
        low, high = max(group, start), min(group + 4096, stop)
        draw_blocks(z, high - group, law, group // 1024, k0, k1, tensor, stream, table, words)
        _add_twice(out[low - start : high - start], first, second, z[low - group : high - group])


@compiled
def _sixteen_bits(out, start, k0, k1, tensor, stream):  # type: ignore[no-untyped-def]
    words, room = np.empty(1024, _u32), np.empty(1024, _u32)
    stop = start + out.shape[0]
    for block in range(start // 1024 * 1024, stop, 1024):
        fill_sixteen_bits(room, block // 1024, k0, k1, tensor, stream, words)
        low, high = max(block, start), min(block + 1024, stop)
        for e in range(low, high):
            out[e - start] = room[e - block]


def _words(stream: Stream) -> tuple[Any, ...]:
    return tuple(
        map(_u32, (stream.key & 0xFFFFFFFF, stream.key >> 32, stream.tensor_id, stream.number))
    )


def add(
    out: Tensor, law: Law, stream: Stream, start: int, first: float, second: float = 0.0
) -> None:
    """out = (out + first * z) + second * z in place, z = z[start : start + len(out)].

    `out` is a contiguous float32 CPU vector; each product and each sum is rounded.
    """
    scales = _f32(first), _f32(second)
    _add(out.numpy(), LAWS[law], start, *scales, *_words(stream), normal16_table())


def sixteen_bits(stream: Stream, start: int, count: int) -> Tensor:
    """Uniform integers below 2^16 as an int32 CPU vector, laid out as normal16's indices."""
    out = torch.empty(count, dtype=torch.int32)
    _sixteen_bits(out.numpy(), start, *_words(stream))
    return out
