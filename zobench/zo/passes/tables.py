"""The tables of a pass: plain numbers about targets, terms and pieces, as the kernels read them."""

import math
from collections.abc import Sequence
from itertools import accumulate
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from zobench.zo.moves import Move, Recipe, Term
from zobench.zo.noise.blocks import LAWS
from zobench.zo.noise.stream import Stream
from zobench.zo.passes import kernel
from zobench.zo.passes.storage import BFLOAT16, FLOAT16, FLOAT32
from zobench.zo.passes.storage import NEAREST as TO_NEAREST
from zobench.zo.passes.storage import REMAINDER as WITH_REMAINDER
from zobench.zo.passes.storage import STOCHASTIC as BY_CHANCE
from zobench.zo.rounding import NEAREST, Rounding

Table = npt.NDArray[np.void]

DTYPES = {torch.float32: FLOAT32, torch.bfloat16: BFLOAT16, torch.float16: FLOAT16}
PIECE = 4096  # elements: two float32 buffers of it fit the first-level cache
_LONGEST = 65536  # elements of a piece of several rows
_GROUP = 1 << 20  # elements, about, whose row sums are one sum
_GROUPS = 32  # of a tensor at most


class Tables(NamedTuple):
    """targets, terms, pieces: see `kernel`. longest: elements of a piece; widest: of a row."""

    targets: Table
    terms: Table
    pieces: Table
    longest: int
    widest: int


def tables_of(moves: Sequence[Move]) -> Tables:
    """The tables of moves whose directions all have recipes."""
    targets, terms = rows_of(moves)
    recipes = [[recipe_of(term) for term in move.terms] for move in moves]
    widths = [{recipe.width for recipe in own if recipe.row is not None} for own in recipes]
    pairs = zip(moves, widths, strict=True)
    rows = [None if w or m.row > _LONGEST else m.rows for m, w in pairs]
    pieces, longest = pieces_of(
        [move.target.numel() for move in moves],
        [
            piece_length(w) if r is None else m.row
            for m, w, r in zip(moves, widths, rows, strict=True)
        ],
        [None if r is None else r.numpy() for r in rows],
    )
    widest = max((w for own in widths for w in own), default=1)
    return Tables(
        np.array(targets, kernel.TARGET), np.array(terms, kernel.TERM), pieces, longest, widest
    )


def rows_of(moves: Sequence[Move]) -> tuple[list[tuple[Any, ...]], list[tuple[Any, ...]]]:
    """The rows of TARGET, and those of TERM in the order of the moves."""
    ends = [0, *accumulate(len(move.terms) for move in moves)]
    targets = [target_row(move, *ends[i : i + 2]) for i, move in enumerate(moves)]
    terms = []
    for move in moves:
        weights = move.row_sums.weights if move.row_sums else [0.0] * len(move.terms)
        for term, weight in zip(move.terms, weights, strict=True):
            scales = term.first, term.second
            terms.append(term_row(recipe_of(term), term.direction.stream, *scales, weight))
    return targets, terms


def recipe_of(term: Term) -> Recipe:
    recipe = term.direction.recipe
    assert recipe is not None, "`able` has looked"
    return recipe


def groups_of(numel: int) -> int:
    """Into how many sums a tensor's row sums are split: no more than one thread works on one."""
    return max(1, min(_GROUPS, numel // _GROUP))


def pieces_of(
    numels: Sequence[int],
    lengths: Sequence[int],
    rows: Sequence[npt.NDArray[np.int64] | None] | None = None,
) -> tuple[Table, int]:
    """Spans of the targets, in order, and the length of the longest one.

    rows: the rows that are needed, of a target whose pieces are all rows.
    """
    count, size = np.array(numels, np.int64), np.array(lengths, np.int64)
    number = -(-count // np.maximum(1, size))
    for i, needed in enumerate(rows or ()):
        if needed is not None:
            number[i] = len(needed)
    target = np.repeat(np.arange(len(count)), number)
    place = np.arange(number.sum()) - np.repeat(np.cumsum(number) - number, number)
    groups = np.clip(count // _GROUP, 1, _GROUPS)
    pieces = np.zeros(len(target), kernel.PIECE)
    pieces["group"] = place * groups[target] // number[target]
    for i, needed in enumerate(rows or ()):
        if needed is not None:
            place[target == i] = needed
    pieces["target"], pieces["start"] = target, place * size[target]
    pieces["stop"] = np.minimum(pieces["start"] + size[target], count[target])
    return pieces, int(np.minimum(size, count).max(initial=1))


def piece_length(widths: set[int]) -> int:
    """Elements of a piece: whole rows, and whole groups of blocks where the rows allow it."""
    if not widths:
        return PIECE
    row = math.lcm(*widths)
    even = math.lcm(row, PIECE)
    return even if even <= _LONGEST else max(1, _LONGEST // 4 // row) * row


def target_row(move: Move, first: int, last: int) -> tuple[Any, ...]:
    """A row of TARGET."""
    state_update, sums = move.state_update, move.row_sums
    left, rounding = move.rounding.remainder, move.rounding if move.out is None else NEAREST
    states = [state.data_ptr() for state in state_update.buffers] if state_update else []
    scalars = list(state_update.scalars) if state_update else []
    out = move.target if move.out is None else move.out
    return (
        move.target.data_ptr(),
        0 if left is None else left.data_ptr(),
        out.data_ptr(),
        DTYPES[move.target.dtype],
        DTYPES[out.dtype],
        *_rounding(rounding),
        move.decay,
        first,
        last,
        state_update.kernel if state_update else kernel.PLAIN,
        *((sums.outer.data_ptr(), sums.energy.data_ptr()) if sums else (0, 0)),
        *states,
        *[0] * (2 - len(states)),
        *scalars,
        *[0.0] * (5 - len(scalars)),
        *_words(rounding.stream),
    )


def _rounding(rounding: Rounding) -> tuple[int, int]:
    if rounding.remainder is not None:
        return WITH_REMAINDER, rounding.remainder.data_ptr()
    return (TO_NEAREST if rounding.stream is None else BY_CHANCE), 0


def _words(stream: Stream | None) -> tuple[int, int, int, int]:
    if stream is None:
        return 0, 0, 0, 0
    return stream.key & 0xFFFFFFFF, stream.key >> 32, stream.tensor_id, stream.number


def term_row(
    recipe: Recipe, stream: Stream | None, first: float, second: float, sum_weight: float = 0.0
) -> tuple[Any, ...]:
    """A row of TERM. stream: of the recipe's noise, if it has any."""
    vector, row = recipe.vector, recipe.row
    return (
        -1 if recipe.law is None else LAWS[recipe.law],
        *_words(stream),
        recipe.sigma,
        0 if vector is None else vector.data_ptr(),
        FLOAT32 if vector is None else DTYPES[vector.dtype],
        *((row[0].data_ptr(), row[1].data_ptr(), recipe.width) if row else (0, 0, 1)),
        recipe.row_scale,
        first * recipe.scale,
        second * recipe.scale,
        sum_weight,
    )
