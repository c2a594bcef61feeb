"""Numba functions of a pass: a span of a direction, drawn into a buffer by its row of TERM."""

import numpy as np

from zobench.zo.noise.blocks import compiled, draw_blocks
from zobench.zo.passes.storage import FLOAT32, floats_at, load

_u64, _f32 = np.uint64, np.float32


@compiled
def _halved(u, a, whole, parts):  # type: ignore[no-untyped-def]
    parts[:] = _f32(0.0)
    for at in range(_u64(0), _u64(whole), _u64(128)):
        for e in range(_u64(128)):
            parts[e] += u[at + e] * a[at + e]
    for half in (64, 32, 16):
        for e in range(_u64(half)):
            parts[e] += parts[e + _u64(half)]
    total = _f32(0.0)
    for e in range(16):
        total += parts[e]
    return total


@compiled
def dot(u, a, parts):  # type: ignore[no-untyped-def]
    """<u, a> in float32 by 128 partial sums: vectorised, and in the same order everywhere.

    They are halved to 16, which are summed in order, and what is left of u after them.
    parts: room for the 128.
    """
    whole = u.shape[0] // 128 * 128
    total = _f32(0.0)
    if whole > 0:
        total = _halved(u, a, whole, parts)
    for e in range(whole, u.shape[0]):
        total += u[e] * a[e]
    return total


@compiled
def add_scaled(out, factor, z):  # type: ignore[no-untyped-def]
    for e in range(_u64(out.shape[0])):
        out[e] = out[e] + factor * z[e]


@compiled
def _square_norm(z, parts):  # type: ignore[no-untyped-def]
    """|z|^2 in float64 by 128 partial sums, which are halved; parts: room for them."""
    parts[:] = 0.0
    for at in range(_u64(0), _u64(z.shape[0]), _u64(128)):
        for e in range(min(_u64(128), _u64(z.shape[0]) - at)):
            x = np.float64(z[at + e])
            parts[e] += x * x
    half = 64
    while half > 0:
        for e in range(half):
            parts[e] += parts[e + half]
        half //= 2
    return parts[0]


@compiled
def _around(z, sigma, vector):  # type: ignore[no-untyped-def]
    for e in range(_u64(z.shape[0])):
        z[e] = vector[e] + sigma * z[e]


@compiled
def _short_dot(part, at, row):  # type: ignore[no-untyped-def]
    """`dot` without a view of the row, which would cost more than a short one."""
    total = _f32(0.0)
    for e in range(_u64(row.shape[0])):
        total += part[at + e] * row[e]
    return total


@compiled
def _shape(part, term, sums, parts):  # type: ignore[no-untyped-def]
    """Take every row u to scale * (u - <u, a> pull), and sum it; returns the sum of <u, a>^2."""
    width = term.width
    row, pull = floats_at(term.row, 0, width), floats_at(term.pull, 0, width)
    weight, factor, energy = term.sum_weight, term.scale, 0.0
    for at in range(_u64(0), _u64(part.shape[0]), _u64(width)):
        long = width >= 128
        p = dot(part[at : at + _u64(width)], row, parts) if long else _short_dot(part, at, row)
        if weight != _f32(0.0):
            for e in range(_u64(width)):
                sums[e] = sums[e] + weight * p * part[at + e]
            energy += p * p
        for e in range(_u64(width)):
            part[at + e] = (part[at + e] + -p * pull[e]) * factor
    return energy


@compiled
def draw(z, term, start, table, words, spare, sums):  # type: ignore[no-untyped-def]
    """One term's direction from element `start` on, into z. Rows are whole: start is a row's.

    z must have room for whole groups of 4096 elements around the span. sums: row sums of a row's
    length are added to it. Returns the span's part of z and the sum of <u, a>^2 over its rows, or
    of z^2 where it has none.
    """
    first = start // 4096 * 4096
    count = spare.shape[0]
    part = z[start - first : start - first + count]
    if term.law >= 0:
        draw_blocks(
            z,
            start - first + count,
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
        if term.law < 0:
            load(part, term.vector, term.vector_dtype, start, 0, spare)
        elif term.vector_dtype == FLOAT32:
            _around(part, term.sigma, floats_at(term.vector, start, count))
        else:
            load(spare, term.vector, term.vector_dtype, start, 0, spare)
            _around(part, term.sigma, spare)
    energy = 0.0
    if term.row != 0:
        energy = _shape(part, term, sums, words[:128].view(np.float32))
    elif term.sum_weight != _f32(0.0):
        energy = _square_norm(part, words[:256].view(np.float64))
    return part, energy
