"""Rows that annotators did not agree on (SNLI) have the label -1 on the hub, `-` in files."""

from collections.abc import Iterator

from zobench.tasks.example import Row


def shape(row: Row) -> Iterator[Row]:
    """The row, if it has a gold label in the column `label`."""
    if str(row.values.get("label")) not in ("-1", "-"):
        yield row
