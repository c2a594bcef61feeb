"""The pass over GPU memory: one launch for any number of tensors, in Triton.

What it does to each element is what `kernel` does on a CPU, to the bit but for `normal` noise and
the order of a dot product. A program finds its target among the tables, then moves a few blocks of
1024 elements, each a block of the noise layout, so that every word of a Philox call is used.
"""

import triton
import triton.language as tl

from zobench.zo.passes.triton_directions import direction
from zobench.zo.passes.triton_noise import BLOCK, sixteen_bits
from zobench.zo.passes.triton_storage import floats, load, store
from zobench.zo.passes.triton_tables import (
    ADDRESS,
    DECAY,
    DTYPE,
    FIRST,
    FIRST_TERM,
    LAST_TERM,
    LEFT,
    LENGTH,
    NEEDED,
    NUMEL,
    OUT_DTYPE,
    REMAINDER,
    ROUNDING,
    ROUNDING_KEY,
    SCALAR0,
    SECOND,
    SOURCE,
    STATE0,
    STATE1,
    STATE_UPDATE,
    TARGET_WIDTH,
    TERM_WIDTH,
    number_at,
    owner_of,
    stream_at,
)


@triton.jit
def _state_update(target, kind, w, estimate, offs, mask, live, HAS_LIVE: tl.constexpr):  # type: ignore[no-untyped-def]
    """Momentum or Adam between the estimate and the weights, as in `kernel`."""
    m = floats(tl.load(target + STATE0), False) + offs
    mean = tl.load(m, mask, 0.0)
    s0 = number_at(target + SCALAR0, live, HAS_LIVE)
    s1 = number_at(target + SCALAR0 + 1, live, HAS_LIVE)
    s2 = number_at(target + SCALAR0 + 2, live, HAS_LIVE)
    if kind == 1:
        mean = s0 * mean + s1 * estimate
        w = w - s2 * mean
    else:
        v = floats(tl.load(target + STATE1), False) + offs
        square = tl.load(v, mask, 0.0)
        unbias = number_at(target + SCALAR0 + 3, live, HAS_LIVE)
        adam_eps = number_at(target + SCALAR0 + 4, live, HAS_LIVE)
        mean = mean + s0 * (estimate - mean)
        square = s1 * square + (1.0 - s1) * estimate * estimate
        w = w - tl.div_rn(s2 * mean, tl.sqrt_rn(square * unbias) + adam_eps)
        tl.store(v, square, mask)
    tl.store(m, mean, mask)
    return w


@triton.jit(do_not_specialize=["number", "steps"])
def triton_pass(  # type: ignore[no-untyped-def]
    starts,
    number,
    steps,
    targets,
    terms,
    table,
    live,
    dotted,
    BLOCKS: tl.constexpr,
    LAWS: tl.constexpr,
    STORED: tl.constexpr,
    VECTORS: tl.constexpr,
    ROUNDINGS: tl.constexpr,
    STATES: tl.constexpr,
    ROWS: tl.constexpr,
    PICKED: tl.constexpr,
    HAS_LIVE: tl.constexpr,
    ALIGNED: tl.constexpr,
):
    """Move BLOCKS blocks of a target, or one of its needed rows.

    starts: of `number` targets, the first program of each. table: see `triton_noise`. dotted: what
    `dots` has left. LAWS, STORED and VECTORS (dtypes), ROUNDINGS: bits of what occurs. STATES,
    ROWS, PICKED: whether there are states, directions with rows, targets of which rows are needed.
    ALIGNED: every address and number of elements is a multiple of 16. live[0] is 0 where the second
    scales and the state must be left out: the step has failed.
    """
    program = tl.program_id(0).to(tl.int64)
    which = owner_of(starts, program, number, steps)
    target = targets + which * TARGET_WIDTH
    piece = program - tl.load(starts + which)
    numel, needed = tl.load(target + NUMEL), tl.load(target + NEEDED)
    if ALIGNED:
        numel = tl.multiple_of(numel, 16)
    start, stop = piece * (BLOCKS * BLOCK), numel
    last = start + BLOCKS * BLOCK
    if PICKED:
        if needed != 0:
            length = tl.load(target + LENGTH)
            start = tl.load(needed.to(tl.pointer_type(tl.int64)) + piece) * length
            last = start + length
    stop = tl.minimum(stop, last)
    source, address = tl.load(target + SOURCE), tl.load(target + ADDRESS)
    dtype, out_dtype = tl.load(target + DTYPE), tl.load(target + OUT_DTYPE)
    left, remainder = tl.load(target + LEFT), tl.load(target + REMAINDER)
    rounding = tl.load(target + ROUNDING)
    state_update, decay = tl.load(target + STATE_UPDATE), number_at(target + DECAY, live, HAS_LIVE)
    first_term, last_term = tl.load(target + FIRST_TERM), tl.load(target + LAST_TERM)
    sound = True
    if HAS_LIVE:
        sound = tl.load(live) != 0.0
    for block in range(start // BLOCK, (stop + BLOCK - 1) // BLOCK):
        offs = block * BLOCK + tl.arange(0, BLOCK)
        mask = offs < stop
        if PICKED:
            mask = mask & (offs >= start)
        w = load(source, dtype, offs, mask, left, STORED, ALIGNED)
        if decay != 1.0:
            w = w * decay
        estimate = tl.zeros([BLOCK], tl.float32)
        for number_of_term in range(first_term, last_term):
            term = terms + number_of_term * TERM_WIDTH
            z = direction(
                term,
                block,
                offs,
                mask,
                live,
                table,
                dotted,
                LAWS,
                VECTORS,
                ROWS,
                HAS_LIVE,
                ALIGNED,
            )
            first = number_at(term + FIRST, live, HAS_LIVE)
            second = number_at(term + SECOND, live, HAS_LIVE)
            if first != 0.0:
                w = w + first * z
            if (second != 0.0) & sound:
                if STATES:
                    if state_update != 0:
                        estimate = estimate + second * z
                    else:
                        w = w + second * z
                else:
                    w = w + second * z
        if STATES:
            if (state_update != 0) & sound:
                w = _state_update(target, state_update, w, estimate, offs, mask, live, HAS_LIVE)
        noise = tl.zeros([BLOCK], tl.uint32)
        if ROUNDINGS & 4:
            if rounding == 2:
                k0, k1, tensor, stream = stream_at(target + ROUNDING_KEY, live, HAS_LIVE)
                noise = sixteen_bits(block, k0, k1, tensor, stream)
        store(
            w,
            address,
            out_dtype,
            offs,
            mask,
            rounding,
            remainder,
            noise,
            STORED,
            ROUNDINGS,
            ALIGNED,
        )
