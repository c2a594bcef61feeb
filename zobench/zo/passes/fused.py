"""Fused passes on a CPU: tables for the kernel, and threads to share the pieces among."""

import math
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from zobench.zo.directions import Recipe
from zobench.zo.noise.blocks import LAWS
from zobench.zo.noise.quantiles import normal16_table
from zobench.zo.passes import kernel
from zobench.zo.passes.storage import BFLOAT16, FLOAT16, FLOAT32
from zobench.zo.passes.storage import NEAREST as TO_NEAREST
from zobench.zo.passes.storage import REMAINDER as WITH_REMAINDER
from zobench.zo.passes.storage import STOCHASTIC as BY_CHANCE
from zobench.zo.rounding import Rounding

if TYPE_CHECKING:
    from zobench.zo.passes.move import Move

Table = npt.NDArray[np.void]

_DTYPES = {torch.float32: FLOAT32, torch.bfloat16: BFLOAT16, torch.float16: FLOAT16}
_PIECE = 4096  # elements: two float32 buffers of it fit the first-level cache
_LONGEST = 65536  # elements of a piece of several rows
_SHARES = 4  # to each thread, so that a late one is not waited for
_ALONE = 1 << 16  # elements that are not worth a second thread


def able(move: "Move") -> bool:
    """Whether the kernel can carry out the move."""
    tensors = (move.target,) if move.out is None else (move.target, move.out)
    if move.target.device.type != "cpu" or any(t.dtype not in _DTYPES for t in tensors):
        return False
    return all(term.direction.recipe is not None for term in move.terms)


def carry_out(moves: Sequence["Move"]) -> None:
    """All moves in one pass over their memory, on torch's number of threads."""
    recipes = [[_recipe(term.direction.recipe) for term in move.terms] for move in moves]
    counts = [0, *accumulate(map(len, recipes))]
    targets = np.zeros(len(moves), kernel.TARGET)
    terms = np.zeros(counts[-1], kernel.TERM)
    for i, (move, own) in enumerate(zip(moves, recipes, strict=True)):
        targets[i] = _target(move, counts[i], counts[i + 1])
        for j, (term, recipe) in enumerate(zip(move.terms, own, strict=True), counts[i]):
            terms[j] = _term(recipe, term.first, term.second)
    pieces, longest = _pieces(moves, recipes)
    total = int((pieces["stop"] - pieces["start"]).sum())
    threads = 1 if total < _ALONE else torch.get_num_threads()
    shared = (targets, terms, longest, normal16_table())
    if threads == 1:
        kernel.carry_out(pieces, *shared)
        return
    ends = np.searchsorted(
        np.cumsum(pieces["stop"] - pieces["start"]),
        np.linspace(0, total, threads * _SHARES + 1)[1:-1],
    )
    parts = [part for part in np.split(pieces, ends) if len(part)]
    for done in [_pool(threads).submit(kernel.carry_out, part, *shared) for part in parts]:
        done.result()


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="zobench-pass")


os.register_at_fork(after_in_child=_pool.cache_clear)  # threads stay behind in the parent


def _recipe(recipe: Recipe | None) -> Recipe:
    assert recipe is not None, "`able` has looked"
    return recipe


def _pieces(moves: Sequence["Move"], recipes: Sequence[Sequence[Recipe]]) -> tuple[Table, int]:
    """Spans of the targets, and the length of the longest one."""
    found, longest = [], 1
    for i, (move, own) in enumerate(zip(moves, recipes, strict=True)):
        numel = move.target.numel()
        widths = {recipe.width for recipe in own if recipe.row is not None}
        size = min(_length(widths), numel)
        starts = np.arange(0, numel, max(1, size))
        if move.rows is not None and not widths and move.row <= _LONGEST:
            size, starts = move.row, move.rows.numpy() * move.row
        part = np.zeros(len(starts), kernel.PIECE)
        part["target"], part["start"] = i, starts
        part["stop"] = np.minimum(starts + size, numel)
        found.append(part)
        longest = max(longest, size)
    return np.concatenate(found), longest


def _length(widths: set[int]) -> int:
    """Elements of a piece: whole rows, and whole groups of blocks where the rows allow it."""
    if not widths:
        return _PIECE
    row = math.lcm(*widths)
    even = math.lcm(row, _PIECE)
    return even if even <= _LONGEST else max(1, _LONGEST // 4 // row) * row


def _target(move: "Move", first: int, last: int) -> tuple[Any, ...]:
    through = move.through
    states = [state.data_ptr() for state in through.buffers] if through else []
    scalars = list(through.scalars) if through else []
    out = move.target if move.out is None else move.out
    return (
        move.target.data_ptr(),
        out.data_ptr(),
        _DTYPES[move.target.dtype],
        _DTYPES[out.dtype],
        *_rounding(move.rounding),
        move.keep,
        first,
        last,
        through.kernel if through else kernel.PLAIN,
        *states,
        *[0] * (2 - len(states)),
        *scalars,
        *[0.0] * (5 - len(scalars)),
        *_words(move.rounding.stream),
    )


def _rounding(rounding: Rounding) -> tuple[int, int]:
    if rounding.remainder is not None:
        return WITH_REMAINDER, rounding.remainder.data_ptr()
    return (TO_NEAREST if rounding.stream is None else BY_CHANCE), 0


def _words(stream: Any) -> tuple[int, int, int, int]:
    if stream is None:
        return 0, 0, 0, 0
    return stream.key & 0xFFFFFFFF, stream.key >> 32, stream.tensor_id, stream.number


def _term(recipe: Recipe, first: float, second: float) -> tuple[Any, ...]:
    vector, row = recipe.vector, recipe.row
    return (
        -1 if recipe.stream is None else LAWS[recipe.law],
        *_words(recipe.stream),
        recipe.sigma,
        0 if vector is None else vector.data_ptr(),
        FLOAT32 if vector is None else _DTYPES[vector.dtype],
        *((row[0].data_ptr(), row[1].data_ptr(), recipe.width) if row else (0, 0, 1)),
        recipe.row_scale,
        first * recipe.scale,
        second * recipe.scale,
    )


def drawn(recipe: Recipe, start: int, count: int) -> Tensor:
    """A recipe's direction, without its `scale`, as float32; start is a row's where it has rows."""
    terms = np.zeros(1, kernel.TERM)
    terms[0] = _term(recipe, 1.0, 0.0)
    room = np.empty(count + 2 * _PIECE, np.float32)
    words = np.empty(1024, np.uint32)
    spare = np.empty(count, np.float32)
    return torch.from_numpy(kernel.draw(room, terms[0], start, normal16_table(), words, spare))
