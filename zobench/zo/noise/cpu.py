"""The numba back end of znoise v1: noise is drawn and added in one pass over a CPU vector.

A block's Philox calls run in one vectorised loop into a small word buffer; the next loop turns
words into values and adds them. The words stay in the first-level cache.
"""

import math
from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from torch import Tensor

from zobench.zo.noise.law import Law
from zobench.zo.noise.quantiles import normal16_table
from zobench.zo.noise.stream import Stream

_u32, _u64, _f32 = np.uint32, np.uint64, np.float32
_ONE = _u32(0x3F800000)  # the bits of 1.0


def _compile(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile with the disk cache where some folder is writable, without it elsewhere."""
    try:
        return numba.njit(cache=True, nogil=True)(function)
    except RuntimeError:  # numba found no place for its cache, e.g. a read-only container
        return numba.njit(nogil=True)(function)


@numba.njit(inline="always")
def _philox(c0, c1, c2, c3, k0, k1):  # type: ignore[no-untyped-def]
    for _ in range(10):
        p0 = _u64(0xD2511F53) * _u64(c0)
        p1 = _u64(0xCD9E8D57) * _u64(c2)
        c0 = _u32(p1 >> _u64(32)) ^ c1 ^ k0
        c2 = _u32(p0 >> _u64(32)) ^ c3 ^ k1
        c1 = _u32(p1)
        c3 = _u32(p0)
        k0 = _u32(k0 + _u32(0x9E3779B9))
        k1 = _u32(k1 + _u32(0xBB67AE85))
    return c0, c1, c2, c3


@numba.njit(inline="always")
def _fill_words(words, block, calls, k0, k1, tensor, stream):  # type: ignore[no-untyped-def]
    """Words of one block: word w of call j at place w * calls + j."""
    first = _u64(block) * _u64(calls)
    low, high = _u32(first), _u32(first >> _u64(32))
    for j in range(calls):
        w0, w1, w2, w3 = _philox(_u32(low + _u32(j)), high, tensor, stream, k0, k1)
        words[j] = w0
        words[calls + j] = w1
        words[2 * calls + j] = w2
        words[3 * calls + j] = w3


@numba.njit(inline="always")
def _add_block(out, base, first, second, z):  # type: ignore[no-untyped-def]
    """Add first * z, then second * z, to the part of the block at `base` that `out` covers."""
    if base >= 0 and base + 1024 <= out.shape[0]:  # constant bounds: this is the loop that counts
        part = out[base : base + 1024]
        for e in range(1024):
            part[e] = (part[e] + first * z[e]) + second * z[e]
    else:
        for e in range(max(0, -base), min(1024, out.shape[0] - base)):
            out[base + e] = (out[base + e] + first * z[e]) + second * z[e]


def _add_normal16(out, start, first, second, k0, k1, tensor, stream, table):  # type: ignore[no-untyped-def]
    count = out.shape[0]
    words = np.empty(512, _u32)
    z = np.empty(1024, _f32)
    for block in range(start // 1024, (start + count + 1023) // 1024):
        _fill_words(words, block, 128, k0, k1, tensor, stream)
        base = block * 1024 - start
        if base >= 0 and base + 1024 <= count:
            for e in range(512):
                z0 = table[words[e] & _u32(0xFFFF)]
                out[base + e] = (out[base + e] + first * z0) + second * z0
            for e in range(512, 1024):
                z1 = table[words[e - 512] >> _u32(16)]
                out[base + e] = (out[base + e] + first * z1) + second * z1
        else:
            for e in range(512):
                z[e] = table[words[e] & _u32(0xFFFF)]
                z[512 + e] = table[words[e] >> _u32(16)]
            _add_block(out, base, first, second, z)


def _add_rademacher(out, start, first, second, k0, k1, tensor, stream):  # type: ignore[no-untyped-def]
    count = out.shape[0]
    words = np.empty(32, _u32)
    bits = np.empty(1024, _u32)
    signs = bits.view(_f32)
    for block in range(start // 1024, (start + count + 1023) // 1024):
        _fill_words(words, block, 8, k0, k1, tensor, stream)
        for k in range(32):
            for e in range(32):
                bits[32 * k + e] = _ONE | (((words[e] >> _u32(k)) & _u32(1)) << _u32(31))
        _add_block(out, block * 1024 - start, first, second, signs)


def _add_normal(out, start, first, second, k0, k1, tensor, stream):  # type: ignore[no-untyped-def]
    count = out.shape[0]
    words = np.empty(1024, _u32)
    z = np.empty(1024, _f32)
    for block in range(start // 1024, (start + count + 1023) // 1024):
        _fill_words(words, block, 256, k0, k1, tensor, stream)
        for pair in range(0, 1024, 512):
            for j in range(pair, pair + 256):
                radius = math.sqrt(-2.0 * math.log((words[j] + 0.5) * 2.0**-32))
                angle = 2.0 * math.pi * ((words[j + 256] + 0.5) * 2.0**-32)
                z[j] = radius * math.cos(angle)
                z[j + 256] = radius * math.sin(angle)
        _add_block(out, block * 1024 - start, first, second, z)


_KERNELS: dict[Law, tuple[Callable[..., None], Callable[[], tuple[Any, ...]]]] = {
    Law.NORMAL16: (_compile(_add_normal16), lambda: (normal16_table(),)),
    Law.RADEMACHER: (_compile(_add_rademacher), tuple),
    Law.NORMAL: (_compile(_add_normal), tuple),
}


def add(
    out: Tensor, law: Law, stream: Stream, start: int, first: float, second: float = 0.0
) -> None:
    """out = (out + first * z) + second * z in place, z = z[start : start + len(out)].

    `out` is a contiguous float32 CPU vector; each product and each sum is rounded.
    """
    kernel, tables = _KERNELS[law]
    words = (stream.key & 0xFFFFFFFF, stream.key >> 32, stream.tensor_id, stream.number)
    kernel(out.numpy(), start, _f32(first), _f32(second), *map(_u32, words), *tables())
