"""Numba functions of a pass: reading stored weights as float32, rounding float32 to storage.

Storage is float32, bfloat16 or float16. 16-bit storage is rounded in one of three ways:

* nearest: to the nearest value, ties to even, as torch does.
* remainder: an int16 per weight holds what rounding took away. For bfloat16 both halves are
  the 32 bits of a float32; for float16 it counts 2^-16 of the weight's spacing, which holds every
  float32 to its last bit where float16 is normal, and 2^-40 below.
* stochastic: up or down with the chances that make the mean exact, by 16 bits of noise.
"""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import carray, types
from numba.extending import intrinsic

from zobench.zo.noise.blocks import compiled

FLOAT32, BFLOAT16, FLOAT16 = 0, 1, 2
NEAREST, REMAINDER, STOCHASTIC = 0, 1, 2

_u16, _u32, _u64, _i16, _i32 = np.uint16, np.uint32, np.uint64, np.int16, np.int32
_f32, _f64 = np.float32, np.float64
_ABS, _SIGN = _u32(0x7FFFFFFF), _u32(0x80000000)


@intrinsic
def _pointer(typing: Any, address: Any) -> Any:
    """An address, as Python and numpy know it, as a pointer."""
    del typing, address

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        del context, signature
        return builder.inttoptr(arguments[0], ir.IntType(8).as_pointer())

    return types.voidptr(types.int64), code


@compiled
def floats_at(address, start, count):  # type: ignore[no-untyped-def]
    """float32 elements start .. start+count of the array at an address."""
    return carray(_pointer(address + 4 * start), (count,), _f32)


@compiled
def doubles_at(address, start, count):  # type: ignore[no-untyped-def]
    return carray(_pointer(address + 8 * start), (count,), _f64)


@compiled
def _halves_at(address, start, count):  # type: ignore[no-untyped-def]
    return carray(_pointer(address + 2 * start), (count,), _u16)


@compiled
def _remainders_at(address, start, count):  # type: ignore[no-untyped-def]
    return carray(_pointer(address + 2 * start), (count,), _i16)


@compiled
def _copy(source, out):  # type: ignore[no-untyped-def]
    for e in range(_u64(out.shape[0])):
        out[e] = source[e]


@compiled
def _widen_bfloat16(stored, bits):  # type: ignore[no-untyped-def]
    for e in range(_u64(bits.shape[0])):
        bits[e] = _u32(stored[e]) << _u32(16)


@compiled
def _join_bfloat16(stored, remainder, bits):  # type: ignore[no-untyped-def]
    """A zero that was written from outside next to an old remainder stays 0, not NaN.

    By arithmetic instead of a comparison, which is not vectorised.
    """
    for e in range(_u64(bits.shape[0])):
        high = _u32(_u32(stored[e]) << _u32(16))
        joined = _u32(high + _u32(_i32(remainder[e])))
        spoilt = _u32(_u32(_u32(joined & _u32(0x7FFF0000)) + _u32(0x10000)) >> _u32(31))
        bits[e] = _u32(joined ^ _u32(_u32(joined ^ high) & _u32(_u32(0) - spoilt)))


@compiled
def _magnitude_float16(stored, bits):  # type: ignore[no-untyped-def]
    for e in range(_u64(bits.shape[0])):
        bits[e] = _u32(_u32(stored[e]) & _u32(0x7FFF)) << _u32(13)


@compiled
def scale(values, factor):  # type: ignore[no-untyped-def]
    for e in range(_u64(values.shape[0])):
        values[e] = values[e] * factor


@compiled
def _finish_float16(stored, bits):  # type: ignore[no-untyped-def]
    """Put back the sign, and the infinities and NaNs that scaling made finite."""
    for e in range(_u64(bits.shape[0])):
        half = _u32(stored[e])
        special = _u32(0x7F800000) if (half & _u32(0x7C00)) == _u32(0x7C00) else _u32(0)
        bits[e] = bits[e] | special | (_u32(half & _u32(0x8000)) << _u32(16))


@compiled
def _quantum(half):  # type: ignore[no-untyped-def]
    """The bits of 2^-16 of a float16's spacing, as a float32."""
    exponent = max(_u32(half >> _u32(10)) & _u32(31), _u32(1))
    return _u32(_u32(exponent + _u32(86)) << _u32(23))


@compiled
def _quanta_float16(stored, bits):  # type: ignore[no-untyped-def]
    for e in range(_u64(bits.shape[0])):
        bits[e] = _quantum(_u32(stored[e]))


@compiled
def _add_scaled(out, remainder, quanta):  # type: ignore[no-untyped-def]
    for e in range(_u64(out.shape[0])):
        out[e] = out[e] + _f32(remainder[e]) * quanta[e]


@compiled
def _widen_float16(stored, out):  # type: ignore[no-untyped-def]
    _magnitude_float16(stored, out.view(_u32))
    scale(out, _f32(2.0**112))  # exact, float16's subnormals too
    _finish_float16(stored, out.view(_u32))


@compiled
def load(out, address, dtype, start, left, spare):  # type: ignore[no-untyped-def]
    """Weights from `start` on as float32. left: address of remainders, 0: none. spare: like out."""
    count = out.shape[0]
    if dtype == FLOAT32:
        _copy(floats_at(address, start, count), out)
        return
    stored = _halves_at(address, start, count)
    if dtype == BFLOAT16 and left != 0:
        _join_bfloat16(stored, _remainders_at(left, start, count), out.view(_u32))
    elif dtype == BFLOAT16:
        _widen_bfloat16(stored, out.view(_u32))
    else:
        _widen_float16(stored, out)
        if left != 0:
            _quanta_float16(stored, spare.view(_u32))
            _add_scaled(out, _remainders_at(left, start, count), spare)


@compiled
def _round_bfloat16(bits, stored):  # type: ignore[no-untyped-def]
    for e in range(_u64(bits.shape[0])):
        x = bits[e]
        rounded = _u32(x + _u32(0x7FFF) + ((x >> _u32(16)) & _u32(1))) >> _u32(16)
        stored[e] = _u16(rounded) if (x & _ABS) <= _u32(0x7F800000) else _u16(0x7FC0)


@compiled
def _split_bfloat16(bits, stored, remainder):  # type: ignore[no-untyped-def]
    for e in range(_u64(bits.shape[0])):
        x = bits[e]
        stored[e] = _u16(_u32(x + _u32(0x8000)) >> _u32(16))
        remainder[e] = _i16(_u16(x & _u32(0xFFFF)))


@compiled
def _dither_bfloat16(bits, words, stored):  # type: ignore[no-untyped-def]
    for e in range(_u64(bits.shape[0])):
        stored[e] = _u16(_u32(bits[e] + (words[e] & _u32(0xFFFF))) >> _u32(16))


@compiled
def _shift_float16(values, out):  # type: ignore[no-untyped-def]
    """|x| + 1/2, for the rounding of float16's subnormals by the unit in the last place of 1/2."""
    for e in range(_u64(values.shape[0])):
        out[e] = abs(values[e]) + _f32(0.5)


@compiled
def _round_float16(bits, shifted, stored):  # type: ignore[no-untyped-def]
    for e in range(_u64(bits.shape[0])):
        sign = _u32(bits[e] & _SIGN) >> _u32(16)
        x = bits[e] & _ABS
        normal = _u32(x + _u32(0xC8000FFF) + ((x >> _u32(13)) & _u32(1))) >> _u32(13)
        small = _u32(shifted[e] - _u32(0x3F000000))
        half = small if x < _u32(0x38800000) else normal
        half = half if x < _u32(0x47800000) else _u32(0x7C00)
        half = half if x <= _u32(0x7F800000) else _u32(0x7E00)
        stored[e] = _u16(half | sign)


@compiled
def _remains_float16(values, rounded, quanta, remainder):  # type: ignore[no-untyped-def]
    for e in range(_u64(values.shape[0])):
        steps = np.rint((values[e] - rounded[e]) / quanta[e])
        remainder[e] = _i16(min(max(steps, _f32(-32768.0)), _f32(32767.0)))


@compiled
def _spacing_float16(bits, spacing):  # type: ignore[no-untyped-def]
    """The bits of the float16 spacing at each value."""
    for e in range(_u64(bits.shape[0])):
        exponent = max(_u32(bits[e] & _ABS) >> _u32(23), _u32(113))
        spacing[e] = _u32(_u32(exponent - _u32(10)) << _u32(23))


@compiled
def _dither(values, spacing, words):  # type: ignore[no-untyped-def]
    """Take each value to a multiple of its spacing below or above it, by chance.

    13 bits of noise: with the 11 of a float16 they are exact, so that a multiple stays what it is.
    """
    for e in range(_u64(values.shape[0])):
        x, share = values[e], _f32((words[e] & _u32(0xFFFF)) >> _u32(3)) * _f32(2.0**-13)
        steps = np.floor(abs(x) / spacing[e] + share) * spacing[e]
        values[e] = steps if x > _f32(0.0) else -steps


@compiled
def store(w, address, dtype, start, rounding, remainder, words, spare):  # type: ignore[no-untyped-def]
    """Round w into storage from `start` on. words: 16 bits of noise each, where stochastic."""
    count = w.shape[0]
    bits = w.view(_u32)
    if dtype == FLOAT32:
        _copy(w, floats_at(address, start, count))
        return
    stored = _halves_at(address, start, count)
    if dtype == BFLOAT16:
        if rounding == REMAINDER:
            _split_bfloat16(bits, stored, _remainders_at(remainder, start, count))
        elif rounding == STOCHASTIC:
            _dither_bfloat16(bits, words, stored)
        else:
            _round_bfloat16(bits, stored)
        return
    if rounding == STOCHASTIC:
        _spacing_float16(bits, spare.view(_u32))
        _dither(w, spare, words)
    _shift_float16(w, spare)
    _round_float16(bits, spare.view(_u32), stored)
    if rounding == REMAINDER:
        rounded = np.empty(count, _f32)
        _widen_float16(stored, rounded)
        _quanta_float16(stored, spare.view(_u32))
        _remains_float16(w, rounded, spare, _remainders_at(remainder, start, count))
