"""Where rows come from."""

from typing import Protocol

from zobench.tasks.example import Row


class Source(Protocol):
    """A data set in splits."""

    def rows(self, data_dir: str | None) -> dict[str, list[Row]]:
        """Rows of `train`, `test` and, if the data has one of its own, `dev`.

        data_dir: a folder of the user's to read them from.
        """
