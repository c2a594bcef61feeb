"""Triton functions of a pass: storage as float32 and back, rounded exactly as in `storage`.

16-bit numbers are read and written as integers where their bits matter. Multiplications by powers
of two stand where `storage` divides by them: both are exact.
"""

import triton
import triton.language as tl

_ABS = tl.constexpr(0x7FFFFFFF)
_WHOLE = tl.constexpr(12582912.0)  # 1.5 * 2^23: a float32 added to it has no fraction left


@triton.jit
def floats(address, ALIGNED: tl.constexpr):  # type: ignore[no-untyped-def]
    """An address as a pointer to float32. ALIGNED: it is a multiple of 16 bytes."""
    pointer = address.to(tl.pointer_type(tl.float32))
    if ALIGNED:
        pointer = tl.multiple_of(pointer, 16)
    return pointer


@triton.jit
def _halves(address, ALIGNED: tl.constexpr):  # type: ignore[no-untyped-def]
    pointer = address.to(tl.pointer_type(tl.int16))
    if ALIGNED:
        pointer = tl.multiple_of(pointer, 16)
    return pointer


@triton.jit
def _bits(half):  # type: ignore[no-untyped-def]
    """The 16 bits of an int16, as uint32."""
    return half.to(tl.uint16, bitcast=True).to(tl.uint32)


@triton.jit
def _power(exponent):  # type: ignore[no-untyped-def]
    """2^(exponent - 127)."""
    return (exponent << 23).to(tl.float32, bitcast=True)


@triton.jit
def _exponent_float16(bits):  # type: ignore[no-untyped-def]
    """The exponent field of a float16, that of subnormals as of the smallest normal."""
    field = (bits >> 10) & 31
    return tl.where(field > 0, field, 1)


@triton.jit
def load(  # type: ignore[no-untyped-def]
    address, dtype, offs, mask, left, STORED: tl.constexpr, ALIGNED: tl.constexpr
):
    """Elements as float32. left: address of remainders, or 0. STORED: bits of possible dtypes."""
    w = tl.zeros(offs.shape, tl.float32)
    if STORED & 1:
        if dtype == 0:
            w = tl.load(floats(address, ALIGNED) + offs, mask, 0.0)
    if STORED & 2:
        if dtype == 1:
            high = _bits(tl.load(_halves(address, ALIGNED) + offs, mask, 0)) << 16
            if left != 0:
                rest = tl.load(_halves(left, ALIGNED) + offs, mask, 0).to(tl.int32)
                joined = high + rest.to(tl.uint32, bitcast=True)
                # a zero that was written from outside next to an old remainder stays 0
                high = tl.where(((high & _ABS) == 0) & (rest < 0), high, joined)
            w = high.to(tl.float32, bitcast=True)
    if STORED & 4:
        if dtype == 2:
            half = tl.load(_halves(address, ALIGNED) + offs, mask, 0)
            w = half.to(tl.float16, bitcast=True).to(tl.float32)
            if left != 0:
                rest = tl.load(_halves(left, ALIGNED) + offs, mask, 0).to(tl.float32)
                w = w + rest * _power(_exponent_float16(_bits(half)) + 86)
    return w


@triton.jit
def _round_bfloat16(x):  # type: ignore[no-untyped-def]
    """Bits of float32 to those of the nearest bfloat16, ties to even."""
    rounded = (x + 0x7FFF + ((x >> 16) & 1)) >> 16
    return tl.where((x & _ABS) <= 0x7F800000, rounded, 0x7FC0)


@triton.jit
def _dither_float16(w, noise):  # type: ignore[no-untyped-def]
    """To a multiple of the float16 spacing below or above, by 13 bits of noise."""
    exponent = (w.to(tl.uint32, bitcast=True) & _ABS) >> 23
    exponent = tl.where(exponent > 113, exponent, 113)
    share = (noise >> 3).to(tl.float32) * 2.0**-13
    steps = tl.floor(tl.abs(w) * _power(264 - exponent) + share) * _power(exponent - 10)
    return tl.where(w > 0.0, steps, -steps)


@triton.jit
def _remains_float16(w, half):  # type: ignore[no-untyped-def]
    """What rounding w to the half took away, in 2^-16 of the half's spacing."""
    exponent = _exponent_float16(_bits(half.to(tl.int16, bitcast=True)))
    steps = (w - half.to(tl.float32)) * _power(168 - exponent)
    steps = tl.minimum(tl.maximum(steps, -32768.0), 32767.0)
    return ((steps + _WHOLE) - _WHOLE).to(tl.int32).to(tl.int16)


@triton.jit
def store(  # type: ignore[no-untyped-def]
    w,
    address,
    dtype,
    offs,
    mask,
    rounding,
    remainder,
    noise,
    STORED: tl.constexpr,
    ROUNDINGS: tl.constexpr,
    ALIGNED: tl.constexpr,
):
    """Round w into storage. rounding, remainder, noise: see `storage.store`."""
    if STORED & 1:
        if dtype == 0:
            tl.store(floats(address, ALIGNED) + offs, w, mask)
    if STORED & 2:
        if dtype == 1:
            x = w.to(tl.uint32, bitcast=True)
            bits = _round_bfloat16(x)
            if ROUNDINGS & 2:
                if rounding == 1:
                    bits = (x + 0x8000) >> 16
                    rest = (x & 0xFFFF).to(tl.uint16).to(tl.int16, bitcast=True)
                    tl.store(_halves(remainder, ALIGNED) + offs, rest, mask)
            if ROUNDINGS & 4:
                if rounding == 2:
                    bits = (x + noise) >> 16
            half = (bits & 0xFFFF).to(tl.uint16).to(tl.int16, bitcast=True)
            tl.store(_halves(address, ALIGNED) + offs, half, mask)
    if STORED & 4:
        if dtype == 2:
            if ROUNDINGS & 4:
                if rounding == 2:
                    w = _dither_float16(w, noise)
            half = w.to(tl.float16)
            if ROUNDINGS & 2:
                if rounding == 1:
                    rest = _remains_float16(w, half)
                    tl.store(_halves(remainder, ALIGNED) + offs, rest, mask)
            tl.store(_halves(address, ALIGNED) + offs, half.to(tl.int16, bitcast=True), mask)
