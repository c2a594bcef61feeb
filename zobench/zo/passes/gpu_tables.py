"""The tables of a pass as the Triton kernel reads them: one int64 vector with everything in it."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from torch import Tensor

from zobench.zo.moves import Move
from zobench.zo.passes import kernel
from zobench.zo.passes.tables import Table, Tables, rows_of
from zobench.zo.scalars import Scalar, current_scalars

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


class Sizes(NamedTuple):
    """Of each target: its elements, the address of the rows that are needed, if not all are, how
    many those are, and their length.
    """

    numels: Numbers
    needed: Numbers
    counts: Numbers
    lengths: Numbers


def gpu_tables_of(moves: Sequence[Move]) -> GpuTables:
    """The tables of moves on one device whose directions all have recipes."""
    live = _Live()
    of_targets, of_terms = rows_of(moves)
    targets, terms = live.table(of_targets, kernel.TARGET), live.table(of_terms, kernel.TERM)
    picked = [None if m.rows is None else (m.rows.data_ptr(), m.rows.numel()) for m in moves]
    sizes = Sizes(
        np.array([move.target.numel() for move in moves], np.int64),
        np.array([0 if rows is None else rows[0] for rows in picked], np.int64),
        np.array([0 if rows is None else rows[1] for rows in picked], np.int64),
        np.array([move.row for move in moves], np.int64),
    )
    return _laid_out(targets, terms, sizes, live.found)


def gpu_tables_from(tables: Tables, numels: Sequence[int]) -> GpuTables:
    """The tables of a pass as the CPU's kernel has them, over whole targets of these sizes."""
    none = np.zeros(len(numels), np.int64)
    sizes = Sizes(np.array(numels, np.int64), none, none, none)
    return _laid_out(as_integers(tables.targets), as_integers(tables.terms), sizes, [])


def _laid_out(targets: Numbers, terms: Numbers, sizes: Sizes, live: list[Tensor]) -> GpuTables:
    numels, needed, counts, lengths = sizes
    programs = np.where(needed != 0, counts, -(-numels // (BLOCKS * BLOCK)))
    width = np.where(_of(terms, kernel.TERM, "row") != 0, _of(terms, kernel.TERM, "width"), 0)
    first, last = (_of(targets, kernel.TARGET, name) for name in ("first_term", "last_term"))
    owner = np.repeat(np.arange(len(targets)), last - first)
    rows_in = np.where(width > 0, numels[owner] // np.maximum(1, width), 0)
    rowed = np.flatnonzero(width)
    flags = _flags(targets, terms, numels)
    flags |= {"ROWS": len(rowed) > 0, "PICKED": bool(needed.any()), "HAS_LIVE": bool(live)}
    parts = [
        _starts(programs),
        np.concatenate([targets, np.stack([numels, needed, lengths], 1)], 1),
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
        counts=(len(targets), len(rowed)),
        programs=(int(programs.sum()), int(rows_in.sum())),
        flags=flags,
        live=live,
    )


def as_integers(table: Table) -> Numbers:
    """A structured table as int64, floats by their bits."""
    out = np.empty((len(table), len(table.dtype.names or ())), np.int64)
    for j, name in enumerate(table.dtype.names or ()):
        column = table[name]
        out[:, j] = np.ascontiguousarray(column).view("u4") if column.dtype.kind == "f" else column
    return out


class _Live:
    """Finds the numbers that only the device knows, and puts their places into the tables."""

    def __init__(self) -> None:
        self.scalars = current_scalars()
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
        out = as_integers(np.array(rows, dtype))
        for i, j, place in marks:
            out[i, j] = LIVE + place
        return out

    def _place(self, scalar: Scalar) -> int:
        place = self._places.setdefault(id(scalar), len(self.found))
        if place == len(self.found):
            self.found.append(scalar.tensor)
        return place


def _of(table: Numbers, dtype: np.dtype[Any], *names: str) -> Numbers:
    """Columns by their names, one after another."""
    return np.concatenate([table[:, (dtype.names or ()).index(name)] for name in names])


def _flags(targets: Numbers, terms: Numbers, numels: Numbers) -> dict[str, Any]:
    """What occurs in a pass, so that the kernel is compiled for that alone."""
    vectors, laws = _of(terms, kernel.TERM, "vector"), _of(terms, kernel.TERM, "law")
    names = ("source", "left", "address", "remainder")
    addresses = [_of(targets, kernel.TARGET, *names), vectors, numels]
    return {
        "LAWS": _bits(laws[laws >= 0]),
        "STORED": _bits(_of(targets, kernel.TARGET, "dtype", "out_dtype")),
        "VECTORS": _bits(_of(terms, kernel.TERM, "vector_dtype")[vectors != 0]),
        "ROUNDINGS": _bits(_of(targets, kernel.TARGET, "rounding")),
        "STATES": bool((_of(targets, kernel.TARGET, "state_update") != kernel.PLAIN).any()),
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
