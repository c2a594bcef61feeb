"""Fused passes on a CPU: the kernel over tables, its pieces shared among threads."""

import os
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from zobench.zo.moves import Move, Recipe
from zobench.zo.noise import Stream
from zobench.zo.noise.law import normal16_table
from zobench.zo.passes import drawing, kernel
from zobench.zo.passes.tables import DTYPES, PIECE, Tables, tables_of, term_row

Places = npt.NDArray[np.intp]

_SHARES = 4  # per thread, so that no thread waits long for a late one
_ALONE = 1 << 16  # elements that are not worth a second thread


def able(move: Move) -> bool:
    """Whether the kernel can do the move."""
    tensors = (move.target,) if move.out is None else (move.target, move.out)
    known = move.state_update is None or move.state_update.kernel != kernel.IN_TORCH
    recipes = (term.direction.recipe for term in move.terms)
    return known and all(map(stored, tensors)) and all(recipe is not None for recipe in recipes)


def stored(tensor: Tensor) -> bool:
    """Whether the kernel can read and write the tensor."""
    return tensor.device.type == "cpu" and tensor.dtype in DTYPES


def run_numba(moves: Sequence[Move]) -> None:
    """All moves in one pass over their memory, on torch's number of threads."""
    run(tables_of(moves))


def run(tables: Tables) -> None:
    """One pass. The tensors that the tables point to must be alive."""
    pieces = tables.pieces
    sizes = np.cumsum(pieces["stop"] - pieces["start"])
    total = int(sizes[-1]) if len(sizes) else 0
    threads = 1 if total < _ALONE else torch.get_num_threads()
    shared = (tables.targets, tables.terms, tables.longest, tables.widest, normal16_table())
    if threads == 1:
        kernel.numba_pass(pieces, *shared)
        return
    number = min(threads * _SHARES, max(threads, total // _ALONE))
    ends = np.searchsorted(sizes, np.linspace(0, total, number + 1)[1:-1])
    parts = deque(part for part in np.split(pieces, _between_groups(ends, tables)) if len(part))

    def work() -> None:
        with suppress(IndexError):  # until nothing is left
            while True:
                kernel.numba_pass(parts.popleft(), *shared)

    others = [_pool(threads).submit(work) for _ in range(threads - 1)]
    work()
    for done in others:
        done.result()


def _between_groups(ends: Places, tables: Tables) -> Places:
    """The ends, moved forward to the end of a group of summed pieces where they are inside one."""
    pieces = tables.pieces
    if not tables.targets["outer"].any():
        return ends
    summed = tables.targets["outer"][pieces["target"]] != 0
    same = (np.diff(pieces["target"]) == 0) & (np.diff(pieces["group"]) == 0)
    free = np.flatnonzero(np.concatenate([[True], ~(same & summed[1:]), [True]]))
    return free[np.searchsorted(free, ends)]


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="zobench-pass")


os.register_at_fork(after_in_child=_pool.cache_clear)  # threads stay behind in the parent


def drawn(recipe: Recipe, stream: Stream, start: int, count: int) -> Tensor:
    """A recipe's direction, without its `scale`, as float32; start is a row's where it has rows."""
    terms = np.array([term_row(recipe, stream, 1.0, 0.0)], kernel.TERM)
    room = np.empty(count + 2 * PIECE, np.float32)
    words = np.empty(1024, np.uint32)
    spare, sums = np.empty(count, np.float32), np.empty(0, np.float32)
    z, _ = drawing.draw(room, terms[0], start, normal16_table(), words, spare, sums)
    return torch.from_numpy(z)
