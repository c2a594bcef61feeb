"""The fused pass over CPU memory: pieces of many tensors, each loaded, moved and stored once.

Everything is in tables of plain numbers, so that one compiled call takes any number of tensors:
targets (what moves), terms (the directions, several to a target) and pieces (spans of a target,
cut so that they stay in the nearest caches). Each product and each sum is rounded to float32, in
the order of the terms.
"""

import numpy as np

from zobench.zo.noise.blocks import compiled, draw_blocks, fill_sixteen_bits
from zobench.zo.passes.storage import FLOAT32, NEAREST, STOCHASTIC, floats_at, load, scale, store

PLAIN, MOMENTUM, ADAM = 0, 1, 2  # what becomes of the sum of second * z

TARGET = np.dtype(
    [
        ("source", "i8"),  # addresses
        ("address", "i8"),
        ("dtype", "i4"),
        ("out_dtype", "i4"),
        ("rounding", "i4"),
        ("remainder", "i8"),
        ("keep", "f4"),
        ("first_term", "i4"),
        ("last_term", "i4"),
        ("through", "i4"),
        ("state0", "i8"),
        ("state1", "i8"),
        *((f"scalar{i}", "f4") for i in range(5)),
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
    ]
)
PIECE = np.dtype([("target", "i4"), ("start", "i8"), ("stop", "i8")])

_u32, _u64, _f32 = np.uint32, np.uint64, np.float32


@compiled
def dot(u, a):  # type: ignore[no-untyped-def]
    """<u, a> in float32 by sixteen partial sums: vectorised, and in the same order everywhere."""
    parts = np.zeros(16, _f32)
    whole = u.shape[0] // 16 * 16
    for at in range(_u64(0), _u64(whole), _u64(16)):
        for e in range(_u64(16)):
            parts[e] += u[at + e] * a[at + e]
    total = _f32(0.0)
    for e in range(16):
        total += parts[e]
    for e in range(whole, u.shape[0]):
        total += u[e] * a[e]
    return total


@compiled
def add_scaled(out, factor, z):  # type: ignore[no-untyped-def]
    for e in range(_u64(out.shape[0])):
        out[e] = out[e] + factor * z[e]


@compiled
def draw(z, term, start, table, words, spare):  # type: ignore[no-untyped-def]
    """One term's direction from element `start` on, into z. Rows are whole: start is a row's.

    z must have room for whole groups of 4096 elements around the span; returns the span's part.
    """
    first = start // 4096 * 4096
    count = spare.shape[0]
    part = z[start - first : start - first + count]
    if term.law >= 0:
        groups = (start + count - first + 4095) // 4096
        draw_blocks(
            z[: 4096 * groups],
            term.law,
            first // 1024,
            term.key0,
            term.key1,
            term.tensor,
            term.stream,
            table,
            words,
        )
    if term.vector != 0:
        if term.law >= 0:
            load(spare, term.vector, term.vector_dtype, start, NEAREST, 0, spare)
            add_scaled(spare, term.sigma, part)
            part[:] = spare
        else:
            load(part, term.vector, term.vector_dtype, start, NEAREST, 0, spare)
    if term.row != 0:
        row, pull = floats_at(term.row, 0, term.width), floats_at(term.pull, 0, term.width)
        for at in range(0, count, term.width):
            u = part[at : at + term.width]
            add_scaled(u, -dot(u, row), pull)
            scale(u, term.scale)
    return part


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
def carry_out(pieces, targets, terms, longest, table):  # type: ignore[no-untyped-def]
    """Move every piece; longest: elements of the longest one. Pieces may run in any order."""
    words = np.empty(1024, _u32)
    room = np.empty(longest, _f32)
    spare_room = np.empty(longest, _f32)
    estimates = np.empty(longest, _f32)
    noise = np.empty(longest + 8192, _f32)
    for number in range(pieces.shape[0]):
        piece = pieces[number]
        target = targets[piece.target]
        count = piece.stop - piece.start
        w, spare, estimate = room[:count], spare_room[:count], estimates[:count]
        load(w, target.source, target.dtype, piece.start, target.rounding, target.remainder, spare)
        if target.keep != _f32(1.0):
            scale(w, target.keep)
        if target.through != PLAIN:
            estimate[:] = _f32(0.0)
        for t in range(target.first_term, target.last_term):
            term = terms[t]
            z = draw(noise, term, piece.start, table, words, spare)
            if term.first != _f32(0.0):
                add_scaled(w, term.first, z)
            if term.second != _f32(0.0):
                add_scaled(w if target.through == PLAIN else estimate, term.second, z)
        if target.through == MOMENTUM:
            m = floats_at(target.state0, piece.start, count)
            _momentum(w, estimate, m, target.scalar0, target.scalar1, target.scalar2)
        elif target.through == ADAM:
            m = floats_at(target.state0, piece.start, count)
            v = floats_at(target.state1, piece.start, count)
            _adam(w, estimate, m, v, target)
        bits, rounding = noise.view(_u32), target.rounding
        if target.source != target.address:
            rounding = NEAREST
        elif rounding == STOCHASTIC and target.dtype != FLOAT32:
            bits = _rounding_bits(bits, target, piece.start, count, words)
        store(
            w,
            target.address,
            target.out_dtype,
            piece.start,
            rounding,
            target.remainder,
            bits,
            spare,
        )
