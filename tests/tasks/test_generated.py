"""The synthetic reviews as a source of rows."""

import pytest

from zobench.errors import UserError
from zobench.tasks.generated import SyntheticReviews

SIZES = {"train": 6, "dev": 4, "test": 3}


def test_the_source_gives_as_many_rows_as_asked_for() -> None:
    """One pool per split, so that dev is its own and not drawn from train; rows are numbered."""
    rows = SyntheticReviews(sizes=SIZES, seed=0).rows(None)
    assert {split: len(pool) for split, pool in rows.items()} == SIZES
    assert [row.where for row in rows["dev"]] == [
        f"synthetic_reviews dev row {i}" for i in range(4)
    ]
    assert all(row.values.keys() == {"sentence", "label"} for pool in rows.values() for row in pool)


def test_the_seed_names_the_rows() -> None:
    """The same on every call, others under another seed."""
    assert SyntheticReviews(sizes=SIZES, seed=0).rows(None) == SyntheticReviews(
        sizes=SIZES, seed=0
    ).rows(None)
    assert SyntheticReviews(sizes=SIZES, seed=0).rows(None) != SyntheticReviews(
        sizes=SIZES, seed=1
    ).rows(None)


def test_a_folder_is_refused() -> None:
    """Nobody should think that their own reviews were read."""
    with pytest.raises(UserError, match=r"task\.data_dir=mine: "):
        SyntheticReviews(sizes=SIZES, seed=0).rows("mine")
