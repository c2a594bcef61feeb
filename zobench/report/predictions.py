"""The predictions of a suite's runs for each test example, from `predictions.csv.gz`."""

from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from zobench.errors import UserError


class Predictions:
    """The predictions of a suite's runs, each file read once."""

    def __init__(self, suite: Path):
        self._of = cache(lambda folder: _predictions(suite / folder / "predictions.csv.gz"))

    def scores(self, run: pd.Series, metric: str) -> NDArray[np.float64] | None:
        """The run's score of each test example, if their mean is the metric; else None."""
        found = self._of(run["folder"])
        if found is None or not metric.startswith("test/") or found.empty:
            return None
        scores = found["score"].to_numpy()
        return scores if abs(scores.mean() - run[metric]) < 1e-4 else None

    def gold(self, run: pd.Series) -> tuple[str, ...]:
        """The right answers of the test examples, in order; they identify a test split."""
        found = self._of(run["folder"])
        return () if found is None else tuple(found["gold"])


def _predictions(path: Path) -> pd.DataFrame | None:
    if not path.is_file():
        return None
    try:
        # An answer may be any text, also one that pandas takes for a missing value.
        found = pd.read_csv(path, dtype=str, keep_default_na=False)[["gold", "score"]]
        return found.assign(score=found["score"].astype(float))
    except (OSError, EOFError, KeyError, ValueError) as error:
        raise UserError(f"cannot read {path}: {error}; repair or remove the folder") from error
