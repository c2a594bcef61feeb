"""Ways from Philox words to numbers of mean 0 and variance 1, in Triton, for the race alone.

None of them is a law of zobench's but those that `zobench.zo.noise` specifies.
"""

import math

import triton
import triton.language as tl
from triton.language.extra import libdevice

from zobench.zo.passes.triton_noise import BLOCK, draw, words

_TURN = tl.constexpr(2.0 * math.pi * 2.0**-32)
_BYTES = tl.constexpr(1.0 / math.sqrt(4 * (256**2 - 1) / 12))
_COINS = tl.constexpr(1.0 / math.sqrt(32 / 4))


@triton.jit
def _fast_pair(word, other, FAST: tl.constexpr):  # type: ignore[no-untyped-def]
    """Box-Muller as fast as the hardware's functions are; an interpreter has only exact ones."""
    u = (word.to(tl.float32) + 0.5) * 2.0**-32
    angle = other.to(tl.int32, bitcast=True).to(tl.float32) * _TURN
    if FAST:
        radius = tl.sqrt(-2.0 * libdevice.fast_logf(tl.minimum(u, 1.0)))
        return radius * libdevice.fast_cosf(angle), radius * libdevice.fast_sinf(angle)
    radius = tl.sqrt(-2.0 * tl.log(tl.minimum(u, 1.0)))
    return radius * tl.cos(angle), radius * tl.sin(angle)


@triton.jit
def _byte_sum(word):  # type: ignore[no-untyped-def]
    """The sum of a word's four bytes: Irwin-Hall, kurtosis 2.70."""
    pairs = (word & 0x00FF00FF) + ((word >> 8) & 0x00FF00FF)
    total = (pairs & 0xFFFF) + (pairs >> 16)
    return (total.to(tl.float32) - 510.0) * _BYTES


@triton.jit
def _coins(word, FAST: tl.constexpr):  # type: ignore[no-untyped-def]
    """How many of a word's bits are set: kurtosis 2.94."""
    if FAST:
        count = libdevice.popc(word.to(tl.int32, bitcast=True))
        return (count.to(tl.float32) - 16.0) * _COINS
    pairs = word - ((word >> 1) & 0x55555555)
    fours = (pairs & 0x33333333) + ((pairs >> 2) & 0x33333333)
    eights = (fours + (fours >> 4)) & 0x0F0F0F0F
    return (((eights * 0x01010101) >> 24).to(tl.float32) - 16.0) * _COINS


@triton.jit
def _rows(v0, v1, v2, v3):  # type: ignore[no-untyped-def]
    joined = tl.join(tl.join(v0, v2), tl.join(v1, v3))
    return tl.reshape(tl.permute(joined, (1, 2, 0)), [1024])


@triton.jit(do_not_specialize=["key"])  # a key of 1 would be a Python number inside
def add(  # type: ignore[no-untyped-def]
    out, numel, key, scale, table, KIND: tl.constexpr, FAST: tl.constexpr, BLOCKS: tl.constexpr
):
    """out += scale * z, z by KIND: 0 to 2 are zobench's laws, then Box-Muller, bytes and coins."""
    first = tl.program_id(0).to(tl.int64) * BLOCKS
    k = tl.zeros([1], tl.uint32) + key.to(tl.uint32)
    k = tl.sum(k, 0).to(tl.uint32)
    for at in range(0, BLOCKS):
        block = first + at
        offs = block * BLOCK + tl.arange(0, BLOCK)
        if KIND < 3:
            z = draw(KIND, block, k, k, k, k, table, 1 << KIND)
        else:
            w0, w1, w2, w3 = words(block, k, k, k, k, 256)
            if KIND == 3:
                z0, z1 = _fast_pair(w0, w1, FAST)
                z2, z3 = _fast_pair(w2, w3, FAST)
                z = _rows(z0, z1, z2, z3)
            elif KIND == 4:
                z = _rows(_byte_sum(w0), _byte_sum(w1), _byte_sum(w2), _byte_sum(w3))
            else:
                z = _rows(_coins(w0, FAST), _coins(w1, FAST), _coins(w2, FAST), _coins(w3, FAST))
        mask = offs < numel
        values = tl.load(out + offs, mask, 0.0).to(tl.float32) + scale * z
        tl.store(out + offs, values.to(out.dtype.element_ty), mask)
