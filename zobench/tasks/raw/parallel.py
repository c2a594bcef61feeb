"""Sentence pairs in three files with a line each per row: s1.SPLIT, s2.SPLIT and labels.SPLIT."""

from collections.abc import Iterator
from pathlib import Path

from zobench.errors import UserError
from zobench.tasks.example import Row
from zobench.tasks.raw.text import lines_of, text_of

_COLUMNS = {"s1": "sentence1", "s2": "sentence2", "labels": "label"}


def parallel_files(first: Path) -> list[Path]:
    """The three files, given the path of `s1.SPLIT`."""
    return [_beside(first, stem) for stem in _COLUMNS]


def parallel_rows(first: Path, encoding: str = "utf-8") -> Iterator[Row]:
    """Rows with the columns sentence1, sentence2 and label, given the path of `s1.SPLIT`."""
    columns = {name: _lines(_beside(first, stem), encoding) for stem, name in _COLUMNS.items()}
    counts = [len(lines) for lines in columns.values()]
    if len(set(counts)) > 1:
        found = ", ".join(
            f"{stem} has {count}" for stem, count in zip(_COLUMNS, counts, strict=True)
        )
        raise UserError(f"{first}:{min(counts) + 1}: s1, s2 and labels must match ({found} lines)")
    for number, fields in enumerate(zip(*columns.values(), strict=True), start=1):
        yield Row(dict(zip(columns, fields, strict=True)), f"{first}:{number}")


def _beside(first: Path, stem: str) -> Path:
    """`STEM.SPLIT` in the folder of `s1.SPLIT`, gzipped or not."""
    bare = first.name.removesuffix(".gz").replace("s1.", f"{stem}.", 1)
    for name in (bare, f"{bare}.gz"):
        if (first.parent / name).is_file():
            return first.parent / name
    raise UserError(f"{first}: there is no {bare} (or {bare}.gz) beside it")


def _lines(path: Path, encoding: str) -> list[str]:
    """The file's lines without blanks around them; an empty line is an error, as it shifts rows."""
    lines = [line.strip() for line in lines_of(text_of(path, encoding))]
    if lines[-1] == "":
        lines.pop()
    if "" in lines:
        raise UserError(f"{path}:{lines.index('') + 1}: the line is empty")
    return lines
