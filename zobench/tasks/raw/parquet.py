"""Parquet files, as the hub stores them."""

from collections.abc import Iterator
from pathlib import Path

from zobench.errors import UserError
from zobench.tasks.example import Row
from zobench.tasks.shown import listed


def parquet_rows(path: Path) -> Iterator[Row]:
    """Rows with the file's columns; nested columns become dictionaries and lists."""
    import pyarrow  # heavy, and needed for these files only
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(path)
    except (pyarrow.ArrowException, OSError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{path}: not a readable parquet file ({reason[:120]})") from None
    if len({*table.column_names}) < len(table.column_names):
        raise UserError(f"{path}: a column comes twice ({listed(table.column_names)})")
    for number, values in enumerate(table.to_pylist(), start=1):
        yield Row(values, f"{path}: row {number}")
