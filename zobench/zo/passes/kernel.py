"""The fused pass over CPU memory: pieces of many tensors, each loaded, moved and stored once.

Everything is in tables of plain numbers, so that one compiled call takes any number of tensors:
targets (what moves), terms (the directions, several to a target) and pieces (spans of a target,
cut so that they stay in the nearest caches). Each product and each sum is rounded to float32, in
the order of the terms.
"""

import numpy as np

from zobench.zo.noise.blocks import compiled, fill_sixteen_bits
from zobench.zo.passes.drawing import add_scaled, draw
from zobench.zo.passes.storage import (
    FLOAT32,
    STOCHASTIC,
    doubles_at,
    floats_at,
    load,
    scale,
    store,
)

PLAIN, MOMENTUM, ADAM = 0, 1, 2  # what becomes of the sum of second * z
IN_TORCH = -1  # the same, of what no kernel knows

SCALARS = tuple(f"scalar{i}" for i in range(5))  # of a StateUpdate
TARGET = np.dtype(
    [
        ("source", "i8"),  # addresses: of what is moved,
        ("left", "i8"),  # of its remainders; 0: it has none,
        ("address", "i8"),  # and of where the result goes, rounded to what is there
        ("dtype", "i4"),
        ("out_dtype", "i4"),
        ("rounding", "i4"),
        ("remainder", "i8"),
        ("decay", "f4"),
        ("first_term", "i4"),
        ("last_term", "i4"),
        ("state_update", "i4"),
        ("outer", "i8"),  # addresses of the row sums, by group; 0: none
        ("energy", "i8"),
        ("state0", "i8"),
        ("state1", "i8"),
        *((name, "f4") for name in SCALARS),
        *((name, "u4") for name in ("key0", "key1", "tensor", "stream")),  # of the rounding
    ]
)
TERM = np.dtype(
    [
        ("law", "i4"),  # -1: no noise
        *((name, "u4") for name in ("key0", "key1", "tensor", "stream")),
        ("sigma", "f4"),
        ("vector", "i8"),  # 0: none
        ("vector_dtype", "i4"),
        ("row", "i8"),  # addresses of a and its pull; 0: none
        ("pull", "i8"),
        ("width", "i8"),
        ("scale", "f4"),
        ("first", "f4"),
        ("second", "f4"),
        ("sum_weight", "f4"),  # of <u, a> u and <u, a>^2 in the row sums
    ]
)
PIECE = np.dtype([("target", "i4"), ("group", "i4"), ("start", "i8"), ("stop", "i8")])

_u32, _u64, _f32 = np.uint32, np.uint64, np.float32


@compiled
def _add_twice(out, first, second, z):  # type: ignore[no-untyped-def]
    for e in range(_u64(out.shape[0])):
        out[e] = (out[e] + first * z[e]) + second * z[e]


@compiled
def _momentum(w, estimate, m, beta, gain, lr):  # type: ignore[no-untyped-def]
    for e in range(_u64(w.shape[0])):
        m[e] = beta * m[e] + gain * estimate[e]
        w[e] = w[e] - lr * m[e]


@compiled
def _adam(w, estimate, m, v, target):  # type: ignore[no-untyped-def]
    """scalars: 1 - beta1, beta2, lr / (1 - beta1^t), 1 / (1 - beta2^t), adam_eps."""
    gain, beta2, lr, unbias = target.scalar0, target.scalar1, target.scalar2, target.scalar3
    for e in range(_u64(w.shape[0])):
        g = estimate[e]
        m[e] = m[e] + gain * (g - m[e])
        v[e] = beta2 * v[e] + (_f32(1.0) - beta2) * g * g
        w[e] = w[e] - lr * m[e] / (np.sqrt(v[e] * unbias) + target.scalar4)


@compiled
def _rounding_bits(out, target, start, count, words):  # type: ignore[no-untyped-def]
    """The noise that decides the rounding of a span; `out` has room for the blocks around it."""
    first = start // 1024 * 1024
    for at in range(0, start - first + count, 1024):
        fill_sixteen_bits(
            out[at : at + 1024],
            (first + at) // 1024,
            target.key0,
            target.key1,
            target.tensor,
            target.stream,
            words,
        )
    return out[start - first : start - first + count]


@compiled
def _add_row_sums(target, group, sums, energy):  # type: ignore[no-untyped-def]
    """Add a piece's sums to its group's, in float64, and clear them."""
    outer = doubles_at(target.outer, group * sums.shape[0], sums.shape[0])
    for e in range(_u64(sums.shape[0])):
        outer[e] += sums[e]
        sums[e] = _f32(0.0)
    doubles_at(target.energy, group, 1)[0] += energy


@compiled
def numba_pass(pieces, targets, terms, longest, widest, table):  # type: ignore[no-untyped-def]
    """Move every piece. longest: elements of the longest one; widest: of the longest row.

    Pieces may run in any order, but those of one group in theirs, one after another.
    """
    words = np.empty(1024, _u32)
    room = np.empty(longest, _f32)
    spare_room = np.empty(longest, _f32)
    estimates = np.empty(longest, _f32)
    noise = np.empty(longest + 8192, _f32)
    sums = np.zeros(widest, _f32)
    for number in range(pieces.shape[0]):
        piece = pieces[number]
        target = targets[piece.target]
        count = piece.stop - piece.start
        spare, estimate = spare_room[:count], estimates[:count]
        if target.dtype == FLOAT32 and target.source == target.address:
            w = floats_at(target.source, piece.start, count)
        else:
            w = room[:count]
            load(w, target.source, target.dtype, piece.start, target.left, spare)
        if target.decay != _f32(1.0):
            scale(w, target.decay)
        if target.state_update != PLAIN:
            estimate[:] = _f32(0.0)
        energy, width = 0.0, 0
        for t in range(target.first_term, target.last_term):
            term = terms[t]
            if (
                term.first == _f32(0.0)
                and term.second == _f32(0.0)
                and term.sum_weight == _f32(0.0)
            ):
                continue
            z, own = draw(noise, term, piece.start, table, words, spare, sums)
            energy, width = energy + term.sum_weight * own, max(width, term.width)
            if (
                target.state_update == PLAIN
                and term.first != _f32(0.0)
                and term.second != _f32(0.0)
            ):
                _add_twice(w, term.first, term.second, z)
                continue
            if term.first != _f32(0.0):
                add_scaled(w, term.first, z)
            if term.second != _f32(0.0):
                add_scaled(w if target.state_update == PLAIN else estimate, term.second, z)
        if target.outer != 0:
            _add_row_sums(target, piece.group, sums[:width], energy)
        if target.state_update == MOMENTUM:
            m = floats_at(target.state0, piece.start, count)
            _momentum(w, estimate, m, target.scalar0, target.scalar1, target.scalar2)
        elif target.state_update == ADAM:
            m = floats_at(target.state0, piece.start, count)
            v = floats_at(target.state1, piece.start, count)
            _adam(w, estimate, m, v, target)
        if target.dtype == FLOAT32 and target.source == target.address:
            continue
        bits = noise.view(_u32)
        if target.rounding == STOCHASTIC:
            bits = _rounding_bits(bits, target, piece.start, count, words)
        store(
            w,
            target.address,
            target.out_dtype,
            piece.start,
            target.rounding,
            target.remainder,
            bits,
            spare,
        )
