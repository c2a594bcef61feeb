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


def files_of(source: Any, data_dir: str | None) -> Sequence[Path]:
    """The files that `rows` would read now; none of a source that does not say.

    Raises UserError, as `rows` does, where they are not there.
    """
    find = getattr(source, "input_files", None)
    return () if find is None else find(data_dir)


def digests_of(source: Any) -> Mapping[str, str]:
    """By split, a hash of the rows that the source has got from elsewhere than files."""
    known: Mapping[str, str] = getattr(source, "row_digests", {})
    return known
