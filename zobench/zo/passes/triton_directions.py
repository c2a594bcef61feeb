"""A term's direction on one block, in Triton: noise, around a stored vector, shaped by rows."""

import triton
import triton.language as tl

from zobench.zo.passes.triton_noise import BLOCK, draw
from zobench.zo.passes.triton_storage import floats, load
from zobench.zo.passes.triton_tables import (
    DOTS,
    KEY,
    LAW,
    PULL,
    ROW,
    SCALE,
    SIGMA,
    TERM_WIDTH,
    VECTOR,
    VECTOR_DTYPE,
    WIDTH,
    number_at,
    owner_of,
    stream_at,
)


@triton.jit
def _noise(term, block, live, table, LAWS: tl.constexpr, HAS_LIVE: tl.constexpr):  # type: ignore[no-untyped-def]
    k0, k1, tensor, stream = stream_at(term + KEY, live, HAS_LIVE)
    return draw(tl.load(term + LAW), block, k0, k1, tensor, stream, table, LAWS)


@triton.jit(do_not_specialize=["number", "steps"])
def dots(  # type: ignore[no-untyped-def]
    starts,
    number,
    steps,
    rowed,
    terms,
    table,
    live,
    out,
    LAWS: tl.constexpr,
    HAS_LIVE: tl.constexpr,
):
    """<u, a> of every row of the terms that have rows, a program each. rowed: their numbers."""
    program = tl.program_id(0).to(tl.int64)
    which = owner_of(starts, program, number, steps)
    term = terms + tl.load(rowed + which) * TERM_WIDTH
    width = tl.load(term + WIDTH)
    row = program - tl.load(starts + which)
    start = row * width
    pointer = floats(tl.load(term + ROW), False)
    total = tl.zeros([BLOCK], tl.float32)
    for block in range(start // BLOCK, (start + width + BLOCK - 1) // BLOCK):
        offs = block * BLOCK + tl.arange(0, BLOCK) - start
        u = _noise(term, block, live, table, LAWS, HAS_LIVE)
        a = tl.load(pointer + offs, (offs >= 0) & (offs < width), 0.0)
        total += u * a
    tl.store(out + tl.load(term + DOTS) + row, tl.sum(total, 0))


@triton.jit
def direction(  # type: ignore[no-untyped-def]
    term,
    block,
    offs,
    mask,
    live,
    table,
    dotted,
    LAWS: tl.constexpr,
    VECTORS: tl.constexpr,
    ROWS: tl.constexpr,
    HAS_LIVE: tl.constexpr,
    ALIGNED: tl.constexpr,
):
    """A term's direction on a block. VECTORS: bits of the dtypes that stored vectors have."""
    z = _noise(term, block, live, table, LAWS, HAS_LIVE)
    if VECTORS:
        vector = tl.load(term + VECTOR)
        if vector != 0:
            kind = tl.load(term + VECTOR_DTYPE)
            stored = load(vector, kind, offs, mask, vector * 0, VECTORS, ALIGNED)
            if tl.load(term + LAW) >= 0:
                sigma = number_at(term + SIGMA, live, HAS_LIVE)
                z = stored + sigma * z
            else:
                z = stored
    if ROWS:
        pull = tl.load(term + PULL)
        if pull != 0:
            width = tl.load(term + WIDTH)
            row = offs // width
            p = tl.load(dotted + tl.load(term + DOTS) + row, mask, 0.0)
            along = tl.load(floats(pull, False) + (offs - row * width), mask, 0.0)
            z = (z + -p * along) * number_at(term + SCALE, live, HAS_LIVE)
    return z
