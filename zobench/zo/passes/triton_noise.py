"""Triton functions of znoise v1: whole blocks of 1024 values of a law, all words of every call.

A block is drawn by one program: its calls side by side, their words brought into the order of the
specification. The integers are the specification's on every device. `normal` is worked out in
float32 so that it stays within about 1e-6: the logarithm of numbers near 1 from their distance to
it, the angle from its distance to the nearest quarter of a turn.
"""

import math

import triton
import triton.language as tl

BLOCK = tl.constexpr(1024)
_TURN = tl.constexpr(2.0 * math.pi * 2.0**-32)


@triton.jit
def _philox(c0, c1, c2, c3, k0, k1):  # type: ignore[no-untyped-def]
    for _ in tl.static_range(10):
        high0, low0 = tl.umulhi(c0, 0xD2511F53), c0 * 0xD2511F53
        high1, low1 = tl.umulhi(c2, 0xCD9E8D57), c2 * 0xCD9E8D57
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = k0 + 0x9E3779B9, k1 + 0xBB67AE85
    return c0, c1, c2, c3


@triton.jit
def words(block, k0, k1, tensor, stream, CALLS: tl.constexpr):  # type: ignore[no-untyped-def]
    """The four words of the block's calls, each a uint32 vector. block: int64, the rest uint32."""
    first = block * CALLS
    none = tl.zeros([CALLS], tl.uint32)
    low = first.to(tl.uint32) + tl.arange(0, CALLS).to(tl.uint32)
    high = (first >> 32).to(tl.uint32) + none
    return _philox(low, high, tensor + none, stream + none, k0 + none, k1 + none)


@triton.jit
def _in_order(v0, v1, v2, v3, CALLS: tl.constexpr):  # type: ignore[no-untyped-def]
    """Value w of call j at place w * CALLS + j."""
    pairs = tl.join(tl.join(v0, v2), tl.join(v1, v3))  # [j, half of w, bit 0 of w]
    return tl.reshape(tl.permute(pairs, (1, 2, 0)), [4 * CALLS])


@triton.jit
def sixteen_bits(block, k0, k1, tensor, stream):  # type: ignore[no-untyped-def]
    """1024 uniform integers below 2^16 as uint32: the indices of normal16."""
    w0, w1, w2, w3 = words(block, k0, k1, tensor, stream, 128)
    both = _in_order(w0, w1, w2, w3, 128)
    halves = tl.join(both & 0xFFFF, both >> 16)
    return tl.reshape(tl.permute(halves, (1, 0)), [1024])


@triton.jit
def _signs(block, k0, k1, tensor, stream):  # type: ignore[no-untyped-def]
    w0, w1, w2, w3 = words(block, k0, k1, tensor, stream, 8)
    word = _in_order(w0, w1, w2, w3, 8)[None, :]
    bit = (word >> tl.arange(0, 32).to(tl.uint32)[:, None]) & 1
    return tl.reshape(1 - 2 * bit.to(tl.int32), [1024]).to(tl.float32)


@triton.jit
def _radius(word):  # type: ignore[no-untyped-def]
    """sqrt(-2 log u), u = (word + 1/2) / 2^32, as exact near 1 as near 0."""
    other = ~word  # 1 - u = (other + 1/2) / 2^32
    large = word > other
    away = (tl.where(large, other, word).to(tl.float32) + 0.5) * 2.0**-32
    near = tl.where(large, 1.0 - away, away)
    lost = tl.where(large, 1.0 - near, 1.0)  # what `near` has kept of the distance to 1
    share = tl.where(large & (lost > 0.0), away / tl.where(lost > 0.0, lost, 1.0), 1.0)
    logarithm = tl.log(near) * share
    return tl.sqrt(-2.0 * tl.where(large & (lost == 0.0), -away, logarithm))


@triton.jit
def _pair(word, other):  # type: ignore[no-untyped-def]
    """Box-Muller: the two values of a pair of words."""
    radius = _radius(word)
    quarter = (other + 0x20000000) >> 30
    rest = (other - (quarter << 30)).to(tl.int32, bitcast=True)
    angle = (rest.to(tl.float32) + 0.5) * _TURN
    c, s = tl.cos(angle), tl.sin(angle)
    odd = (quarter & 1) == 1
    x, y = tl.where(odd, s, c), tl.where(odd, c, s)
    x = tl.where((quarter == 1) | (quarter == 2), -x, x)
    return radius * x, radius * tl.where(quarter >= 2, -y, y)


@triton.jit
def _box_muller(block, k0, k1, tensor, stream):  # type: ignore[no-untyped-def]
    w0, w1, w2, w3 = words(block, k0, k1, tensor, stream, 256)
    z0, z1 = _pair(w0, w1)
    z2, z3 = _pair(w2, w3)
    return _in_order(z0, z1, z2, z3, 256)


@triton.jit
def _quantiles(block, k0, k1, tensor, stream, table):  # type: ignore[no-untyped-def]
    """table: the upper half of normal16's, of which the lower is the mirror image."""
    index = sixteen_bits(block, k0, k1, tensor, stream)
    upper = index >= 32768
    z = tl.load(table + (tl.where(upper, index, ~index) & 0x7FFF))
    return tl.where(upper, z, -z)


@triton.jit
def draw(law, block, k0, k1, tensor, stream, table, LAWS: tl.constexpr):  # type: ignore[no-untyped-def]
    """A block of a law by its number in `blocks.LAWS`. LAWS: bits of the laws there may be."""
    z = tl.zeros([BLOCK], tl.float32)
    if LAWS & 1:
        if law == 0:
            z = _quantiles(block, k0, k1, tensor, stream, table)
    if LAWS & 2:
        if law == 1:
            z = _signs(block, k0, k1, tensor, stream)
    if LAWS & 4:
        if law == 2:
            z = _box_muller(block, k0, k1, tensor, stream)
    return z
