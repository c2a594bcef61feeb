"""A table as texts, before it is written in a format."""

from dataclasses import dataclass
from typing import Any

UNDER = "  "  # how the label of a line that stands under a row begins


@dataclass(frozen=True)
class Sheet:
    """A table ready to be written: `header` and `body` as texts, `records` the numbers.

    A line of the body whose label begins with UNDER belongs to the row above it. differs: in what
    the runs differ that make up the table; empty if they can be compared.
    """

    title: str
    header: list[str]
    body: list[list[str]]
    notes: list[str]
    records: list[dict[str, Any]]
    differs: str = ""

    @property
    def warning(self) -> str:
        """The first line of the table, or nothing."""
        return f"these runs differ in: {self.differs}" if self.differs else ""
