"""How the Triton kernel reads the tables of a pass.

Tables are int64, a row for each target or term; numbers of other types are stored by their bits. A
number that only the device knows is LIVE + its place in the vector `live`, of float64.
"""

import triton
import triton.language as tl

from zobench.zo.passes.kernel import TARGET, TERM

LIVE = tl.constexpr(1 << 40)

# columns of a target: those of TARGET, then elements, needed rows (address, or 0), a row's length
_TARGET, _TERM = TARGET.names or (), TERM.names or ()
TARGET_WIDTH, TERM_WIDTH = tl.constexpr(len(_TARGET) + 3), tl.constexpr(len(_TERM) + 1)
NUMEL, NEEDED, LENGTH = (tl.constexpr(len(_TARGET) + i) for i in range(3))
DOTS = tl.constexpr(len(_TERM))  # a term's last column: where its dot products begin


def _places(names: tuple[str, ...], *columns: str) -> list[tl.constexpr]:
    return [tl.constexpr(names.index(name)) for name in columns]


SOURCE, LEFT, ADDRESS, DTYPE, OUT_DTYPE, ROUNDING, REMAINDER, DECAY = _places(
    _TARGET, "source", "left", "address", "dtype", "out_dtype", "rounding", "remainder", "decay"
)
FIRST_TERM, LAST_TERM, STATE_UPDATE, STATE0, STATE1, SCALAR0, ROUNDING_KEY = _places(
    _TARGET, "first_term", "last_term", "state_update", "state0", "state1", "scalar0", "key0"
)
LAW, KEY, SIGMA, VECTOR, VECTOR_DTYPE, ROW, PULL, WIDTH = _places(
    _TERM, "law", "key0", "sigma", "vector", "vector_dtype", "row", "pull", "width"
)
SCALE, FIRST, SECOND = _places(_TERM, "scale", "first", "second")


@triton.jit
def number_at(at, live, HAS_LIVE: tl.constexpr):  # type: ignore[no-untyped-def]
    """A float32 of a table."""
    bits = tl.load(at)
    value = bits.to(tl.uint32).to(tl.float32, bitcast=True)
    if HAS_LIVE:
        if bits >= LIVE:
            value = tl.load(live + (bits - LIVE)).to(tl.float32)
    return value


@triton.jit
def word_at(at, live, HAS_LIVE: tl.constexpr):  # type: ignore[no-untyped-def]
    """A uint32 of a table."""
    bits = tl.load(at)
    if HAS_LIVE:
        if bits >= LIVE:
            bits = tl.load(live + (bits - LIVE)).to(tl.int64)
    return bits.to(tl.uint32)


@triton.jit
def stream_at(at, live, HAS_LIVE: tl.constexpr):  # type: ignore[no-untyped-def]
    """Key, tensor id and stream number, from their place in a row."""
    k0, k1 = word_at(at, live, HAS_LIVE), word_at(at + 1, live, HAS_LIVE)
    return k0, k1, tl.load(at + 2).to(tl.uint32), tl.load(at + 3).to(tl.uint32)


@triton.jit
def owner_of(starts, program, number, steps):  # type: ignore[no-untyped-def]
    """Whose first program is the last one not after this one; steps: ceil(log2(number))."""
    low, high = program * 0, program * 0 + number
    for _ in range(steps):
        middle = (low + high) // 2
        before = tl.load(starts + middle) <= program
        low = tl.where(before, middle, low)
        high = tl.where(before, high, middle)
    return low
