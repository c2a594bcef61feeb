"""The source of the synthetic reviews: generated rows, equal on every machine."""

from collections.abc import Mapping

from zobench.errors import UserError
from zobench.tasks import synthetic_reviews
from zobench.tasks.example import Row


class SyntheticReviews:
    """Rows of zobench's own review language; sizes: rows per split, seed: which ones."""

    def __init__(self, *, sizes: Mapping[str, int], seed: int) -> None:
        self.sizes, self.seed = sizes, seed

    def rows(self, data_dir: str | None) -> dict[str, list[Row]]:
        """All rows; raises UserError when a folder is given, since none would be read."""
        if data_dir is not None:
            raise UserError(f"task.data_dir={data_dir}: synthetic reviews are made, not read")
        return {
            split: [
                Row(values, f"synthetic_reviews {split} row {number}")
                for number, values in enumerate(
                    synthetic_reviews.rows(split, count=count, seed=self.seed)
                )
            ]
            for split, count in self.sizes.items()
        }
