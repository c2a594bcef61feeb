"""Numba functions of znoise v1 on a CPU: Philox calls, and whole blocks of 1024 values of a law.

A block's Philox calls run in one vectorised loop into a small word buffer; the next loop turns the
words into values. Both buffers stay in the first-level cache. Table look-ups have a loop of their
own: together with arithmetic they would keep it from being vectorised.
"""

import functools
import hashlib
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
import numpy as np

from zobench.zo.noise.law import Law

LAWS = {Law.NORMAL16: 0, Law.RADEMACHER: 1, Law.NORMAL: 2}  # as kernels know them

_u32, _u64, _f32 = np.uint32, np.uint64, np.float32
_ONE = _u32(0x3F800000)  # the bits of 1.0


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile with the disk cache where some folder is writable, without it elsewhere.

    numba looks at a function's own file to see whether its cache is old, not at the files of what
    it calls: a folder named after the text of all of them keeps old code from being taken for new.
    """
    usual = numba.config.CACHE_DIR
    numba.config.CACHE_DIR = str(Path(usual) / _digest()) if usual else _own_cache()
    try:
        return numba.njit(cache=True, nogil=True)(function)
    except RuntimeError:  # numba found no place for its cache, e.g. a read-only container
        return numba.njit(nogil=True)(function)
    finally:
        numba.config.CACHE_DIR = usual


def _own_cache() -> str:
    """Beside this file's bytecode; empty, which is numba's own choice, where that cannot be."""
    folder = Path(__file__).parent / "__pycache__"
    writable = os.access(folder if folder.exists() else folder.parent, os.W_OK)
    return str(folder / f"numba-{_digest()}") if writable else ""


@functools.cache
def _digest() -> str:
    """Of the sources of all kernels."""
    ground = Path(__file__).parent.parent
    sources = sorted([*ground.glob("noise/*.py"), *ground.glob("passes/*.py")])
    return hashlib.sha1(b"".join(path.read_bytes() for path in sources)).hexdigest()[:12]


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
def _fill_words(words, block, calls, needed, k0, k1, tensor, stream):  # type: ignore[no-untyped-def]
    """Words of the first `needed` calls of a block: word w of call j at place w * calls + j."""
    first = _u64(block) * _u64(calls)
    low, high = _u32(first), _u32(first >> _u64(32))
    for j in range(needed):
        w0, w1, w2, w3 = _philox(_u32(low + _u32(j)), high, tensor, stream, k0, k1)
        words[j] = w0
        words[calls + j] = w1
        words[2 * calls + j] = w2
        words[3 * calls + j] = w3


@compiled
def _words32(words, block, k0, k1, tensor, stream):  # type: ignore[no-untyped-def]
    """The 8 calls each of four blocks; word w of the j-th of them at place 32 w + j."""
    _fill_words(words, block // 4, 32, 32, k0, k1, tensor, stream)


@compiled
def _words128(words, block, needed, k0, k1, tensor, stream):  # type: ignore[no-untyped-def]
    _fill_words(words, block, 128, needed, k0, k1, tensor, stream)


@compiled
def _words256(words, block, k0, k1, tensor, stream):  # type: ignore[no-untyped-def]
    _fill_words(words, block, 256, 256, k0, k1, tensor, stream)


@compiled
def _by_block(words, gathered):  # type: ignore[no-untyped-def]
    """The words of four blocks, each block's together: its word w of call j at place 8 w + j."""
    for b in range(_u64(4)):
        for w in range(_u64(4)):
            for j in range(_u64(8)):
                place = _u64(32) * b + _u64(8) * w + j
                gathered[place] = words[_u64(32) * w + _u64(8) * b + j]


@compiled
def _signs(words, bits):  # type: ignore[no-untyped-def]
    """Four blocks of +1 and -1 as float bits: element 32 k + e of a block is bit k of word e."""
    for b in range(_u64(4)):
        for e in range(_u64(32)):
            word = words[_u64(32) * b + e]
            for k in range(_u64(32)):
                sign = _u32(_u32(word << _u32(_u64(31) - k)) & _u32(0x80000000))
                bits[_u64(1024) * b + _u64(32) * k + e] = _ONE | sign


@compiled
def _quantiles(words, table, z):  # type: ignore[no-untyped-def]
    for e in range(_u64(512)):
        z[e] = table[words[e] & _u32(0xFFFF)]
        z[_u64(512) + e] = table[words[e] >> _u32(16)]


@compiled
def _first_quantiles(words, table, z):  # type: ignore[no-untyped-def]
    for e in range(_u64(z.shape[0])):
        z[e] = table[words[e] & _u32(0xFFFF)]


@compiled
def _box_muller(words, z):  # type: ignore[no-untyped-def]
    for pair in range(0, 1024, 512):
        for j in range(pair, pair + 256):
            radius = math.sqrt(-2.0 * math.log((words[j] + 0.5) * 2.0**-32))
            angle = 2.0 * math.pi * ((words[j + 256] + 0.5) * 2.0**-32)
            z[j] = radius * math.cos(angle)
            z[j + 256] = radius * math.sin(angle)


@compiled
def draw_blocks(z, count, law, first, k0, k1, tensor, stream, table, words):  # type: ignore[no-untyped-def]
    """At least `count` elements of a law from block `first` on into z, which has room for 4096s.

    law: its number in LAWS. `first`: a multiple of 4. table: of normal16. words: room for 1024.
    """
    for at in range(0, count, 4096):
        block = first + at // 1024
        if law == 1:
            _words32(words, block, k0, k1, tensor, stream)
            _by_block(words, words[512:])
            _signs(words[512:], z[at : at + 4096].view(np.uint32))
            continue
        for b in range(min(4, (count - at + 1023) // 1024)):
            part, rest = z[at + 1024 * b : at + 1024 * b + 1024], count - at - 1024 * b
            if law == 0 and rest <= 512:  # the low halves do, of fewer calls below 128
                _words128(words, block + b, min(rest, 128), k0, k1, tensor, stream)
                _first_quantiles(words, table, part[:rest])
            elif law == 0:
                _words128(words, block + b, 128, k0, k1, tensor, stream)
                _quantiles(words, table, part)
            else:
                _words256(words, block + b, k0, k1, tensor, stream)
                _box_muller(words, part)


@compiled
def fill_sixteen_bits(out, block, k0, k1, tensor, stream, words):  # type: ignore[no-untyped-def]
    """One block of uniform 16-bit integers, laid out as normal16's indices are."""
    _words128(words, block, 128, k0, k1, tensor, stream)
    for e in range(_u64(512)):
        out[e] = words[e] & _u32(0xFFFF)
        out[_u64(512) + e] = words[e] >> _u32(16)
