"""The tables of a pass as the Triton kernel reads them: one int64 vector with everything in it."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt
from torch import Tensor

from zobench.zo.passes import kernel
from zobench.zo.passes.tables import recipe_of, target_row, term_row
from zobench.zo.scalars import Scalar, present

if TYPE_CHECKING:
    from zobench.zo.passes.move import Move

Numbers = npt.NDArray[np.int64]

BLOCK = 1024  # elements, one block of the noise layout
BLOCKS = 4  # moved by one program
LIVE = 1 << 40  # + place: the number stands in `live`
_EVEN = 16  # bytes, elements


class GpuTables(NamedTuple):
    """numbers: all parts, one after another; then the places where they begin.

    counts: targets, and terms with rows. programs: of the pass, and of its dot products. live: what
    only the device knows, after the gate; empty where all is known here.
    """

    numbers: Numbers
    starts: int
    targets: int
    terms: int
    row_starts: int
    rowed: int
    counts: tuple[int, int]
    programs: tuple[int, int]
    flags: dict[str, Any]
    live: list[Tensor]


def gpu_tables_of(moves: Sequence["Move"]) -> GpuTables:
    """The tables of moves on one device whose directions all have recipes."""
    recipes = [[recipe_of(term) for term in move.terms] for move in moves]
    lengths = [len(own) for own in recipes]
    ends = np.cumsum([0, *lengths]).tolist()
    both = [
        pair
        for m, own in zip(moves, recipes, strict=True)
        for pair in zip(m.terms, own, strict=True)
    ]
    live = _Live()
    targets = live.table(
        [target_row(m, *ends[i : i + 2]) for i, m in enumerate(moves)], kernel.TARGET
    )
    terms = live.table([term_row(r, t.first, t.second) for t, r in both], kernel.TERM)
    numels = np.array([move.target.numel() for move in moves], np.int64)
    picked = [(i, move.rows) for i, move in enumerate(moves) if move.rows is not None]
    programs, needed = -(-numels // (BLOCKS * BLOCK)), np.zeros_like(numels)
    for i, rows in picked:
        programs[i], needed[i] = rows.numel(), rows.data_ptr()
    length = np.array([move.row for move in moves], np.int64)
    width = np.array([r.width if r.row else 0 for own in recipes for r in own], np.int64)
    owner = np.repeat(np.arange(len(moves)), lengths)
    rows_in = np.where(width > 0, numels[owner] // np.maximum(1, width), 0)
    rowed = np.flatnonzero(width)
    flags = _flags(moves, targets, terms, numels)
    flags |= {"ROWS": len(rowed) > 0, "PICKED": bool(picked), "HAS_LIVE": bool(live.found)}
    parts = [
        _starts(programs),
        np.concatenate([targets, np.stack([numels, needed, length], 1)], 1),
        np.concatenate([terms, _starts(rows_in)[:, None]], 1),
        _starts(rows_in)[rowed],
        rowed,
    ]
    numbers, (starts, of_targets, of_terms, of_rows, of_rowed) = _joined(parts)
    return GpuTables(
        numbers,
        starts,
        of_targets,
        of_terms,
        of_rows,
        of_rowed,
        counts=(len(moves), len(rowed)),
        programs=(int(programs.sum()), int(rows_in.sum())),
        flags=flags,
        live=live.found,
    )


class _Live:
    """Finds the numbers that only the device knows, and puts their places into the tables."""

    def __init__(self) -> None:
        self.scalars = present()
        self.found: list[Tensor] = []
        self._places: dict[int, int] = {}
        if self.scalars is not None:
            gate = self.scalars.gate or self.scalars.one
            self._place(gate)

    def table(self, rows: list[tuple[Any, ...]], dtype: np.dtype[Any]) -> Numbers:
        """Rows of a structured dtype as int64: floats by their bits, or LIVE + a place."""
        names = dtype.names or ()
        marks: list[tuple[int, int, int]] = []
        if self.scalars is not None:
            keys = names.index("key0")
            for i, row in enumerate(rows):
                marks += [
                    (i, j, self._place(x)) for j, x in enumerate(row) if isinstance(x, Scalar)
                ]
                words = self.scalars.keys.get(row[keys] | row[keys + 1] << 32, ())
                marks += [(i, keys + j, self._place(word)) for j, word in enumerate(words)]
            rows = [tuple(0.0 if isinstance(x, Scalar) else x for x in row) for row in rows]
        table = np.array(rows, dtype)
        out = np.empty((len(rows), len(names)), np.int64)
        for j, name in enumerate(names):
            column = table[name]
            out[:, j] = (
                np.ascontiguousarray(column).view("u4") if column.dtype.kind == "f" else column
            )
        for i, j, place in marks:
            out[i, j] = LIVE + place
        return out

    def _place(self, scalar: Scalar) -> int:
        place = self._places.setdefault(id(scalar), len(self.found))
        if place == len(self.found):
            self.found.append(scalar.tensor)
        return place


def _flags(
    moves: Sequence["Move"], targets: Numbers, terms: Numbers, numels: Numbers
) -> dict[str, Any]:
    """What occurs in a pass, so that the kernel is compiled for that alone."""
    target, term = kernel.TARGET.names or (), kernel.TERM.names or ()

    def of(table: Numbers, names: tuple[str, ...], *wanted: str) -> Numbers:
        return np.concatenate([table[:, names.index(name)] for name in wanted])

    vectors = of(terms, term, "vector")
    laws = of(terms, term, "law")
    addresses = [of(targets, target, "source", "address", "remainder"), vectors, numels]
    return {
        "LAWS": _bits(laws[laws >= 0]),
        "STORED": _bits(of(targets, target, "dtype", "out_dtype")),
        "VECTORS": _bits(of(terms, term, "vector_dtype")[vectors != 0]),
        "ROUNDINGS": _bits(of(targets, target, "rounding")),
        "STATES": any(move.through is not None for move in moves),
        "ALIGNED": not any((part % _EVEN).any() for part in addresses),
    }


def _bits(values: Numbers) -> int:
    return sum(1 << int(value) for value in np.unique(values))


def _starts(counts: Numbers) -> Numbers:
    return np.cumsum(counts) - counts


def _joined(parts: Sequence[Numbers]) -> tuple[Numbers, list[int]]:
    """One vector, in which every part begins at a multiple of 16 bytes."""
    sizes = [-(-part.size // 2) * 2 for part in parts]
    places = np.cumsum([0, *sizes]).tolist()
    numbers = np.zeros(max(2, places.pop()), np.int64)
    for place, part in zip(places, parts, strict=True):
        numbers[place : place + part.size] = part.ravel()
    return numbers, places
