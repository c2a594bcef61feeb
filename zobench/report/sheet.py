"""A table as texts, before it is written in a format."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

UNDER = "  "  # the first characters of the label of a line that belongs to the row above
_MARKS = re.compile(r"(?: \[\w+\])+$")


@dataclass(frozen=True)
class Sheet:
    """A table ready to be written: `header` and `body` as texts, `records` the numbers.

    A line of the body whose label begins with UNDER belongs to the row above it. differs: the
    differences of the table's runs; empty if they can be compared. best, close: the best cells of
    their columns and those within noise of them, as indices of the line and of the column.
    """

    title: str
    header: list[str]
    body: list[list[str]]
    notes: list[str]
    records: list[dict[str, Any]]
    differs: str = ""
    best: frozenset[tuple[int, int]] = frozenset()
    close: frozenset[tuple[int, int]] = frozenset()

    @property
    def warning(self) -> str:
        """The first line of the table, or nothing."""
        return f"these runs differ in: {self.differs}" if self.differs else ""

    def legend(self, best: str, close: str) -> list[str]:
        """What the signs of best and close cells mean, in a note; none without such cells."""
        if not self.best:
            return []
        near = f"; {close}: its 95 % interval overlaps that of the best" if self.close else ""
        return [f"{best}: the best of its column{near}"]

    def sign(self, line: int, column: int, best: str, close: str) -> str:
        """The sign of a cell, or nothing."""
        place = (line, column)
        return best if place in self.best else close if place in self.close else ""

    def lines(self, cell: Callable[[str], Any]) -> list[dict[str, Any]]:
        """The body for a template; cell: what it gets of the text of a cell.

        signs: `best`, `close` or nothing for each cell.
        """
        return [
            {
                "under": label.startswith(UNDER),
                "label": label.strip(),
                "cells": list(map(cell, of)),
                "signs": [self.sign(n, place, "best", "close") for place in range(1, len(of) + 1)],
            }
            for n, (label, *of) in enumerate(self.body)
        ]


def unmarked(text: str) -> tuple[str, list[str]]:
    """The text of a cell and, without their brackets, the marks at its end."""
    marks = _MARKS.search(text)
    if marks is None:
        return text, []
    return text[: marks.start()], re.findall(r"\[(\w+)\]", marks[0])
