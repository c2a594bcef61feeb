"""Iterating over a flat tensor block by block, in float32 where storage has 16 bits."""

from collections.abc import Iterator

from torch import Tensor

from zobench.zo.rounding import NEAREST, Rounding

BLOCK = 1 << 20  # elements; the largest temporary of a pass is one float32 block


def spans(numel: int, row: int = 1) -> Iterator[tuple[int, int]]:
    """(start, stop) of consecutive blocks of about BLOCK elements, cut between rows."""
    size = max(1, BLOCK // max(1, row)) * max(1, row)
    for start in range(0, numel, size):
        yield start, min(start + size, numel)


def edit(
    flat: Tensor, row: int = 1, rounding: Rounding = NEAREST, out: Tensor | None = None
) -> Iterator[tuple[int, Tensor]]:
    """(start, block) over a flat tensor; 16-bit storage is widened, and rounded when left.

    Changes made to a block in place are stored at the next iteration: in the tensor, or rounded to
    nearest in `out`, of any dtype, which leaves the tensor unchanged.
    """
    for start, stop in spans(flat.numel(), row):
        place = slice(start, stop)
        work = rounding.widen(flat, place)
        if out is None:
            yield start, work
            rounding.store(work, flat, place)
        else:
            work = work.clone() if flat.dtype.itemsize >= 4 else work
            yield start, work
            out[place].copy_(work)
