"""Where rows come from."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from zobench.tasks.example import Row


class Source(Protocol):
    """A data set in splits."""

    def rows(self, data_dir: str | None) -> dict[str, list[Row]]:
        """Rows of `train`, `test` and, if the data has one of its own, `dev`.

        data_dir: a folder of the user's to read them from.
        """


class FromSource:
    """A task whose rows come from a source, which may say what it reads."""

    source: Any
    data_dir: str | None

    def input_files(self) -> Sequence[Path]:
        """The files that the source would read now; UserError where they are not there."""
        find = getattr(self.source, "input_files", None)
        return () if find is None else find(self.data_dir)

    def row_digests(self) -> Mapping[str, str]:
        """By split, a hash of the rows that the source has got from elsewhere than files."""
        known: Mapping[str, str] = getattr(self.source, "row_digests", {})
        return known
