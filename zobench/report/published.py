"""Published numbers: the rows of `published.csv` that correspond to a run of ours."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pandas as pd

from zobench.errors import UserError
from zobench.paths import PACKAGE_DIR
from zobench.report.runs import Suite

FILE = PACKAGE_DIR / "published" / "published.csv"
KEYS = ("paper", "table", "model", "setting", "metric")


def load() -> pd.DataFrame:
    """All published numbers: text, but `value` and `std` as numbers (NaN where there is no std)."""
    rows = pd.read_csv(FILE, dtype=str, keep_default_na=False)
    numbers = {key: pd.to_numeric(rows[key], errors="coerce") for key in ("value", "std")}
    return rows.assign(**numbers)


@dataclass(frozen=True)
class PublishedNumbers:
    """The numbers that a suite names: null keys match any; `names`: ours to the paper's."""

    paper: str
    table: str | None
    model: str | None
    setting: str | None
    metric: str
    names: Mapping[str, str]

    @cached_property
    def rows(self) -> pd.DataFrame:
        """Those of paper, table and model; UserError where there is none."""
        rows = load()
        for key in ("paper", "table", "model"):
            value = getattr(self, key)
            if value is not None:
                known = sorted(set(rows[key]))
                rows = rows[rows[key] == value]
                if rows.empty:
                    raise UserError(
                        f"published.{key}={value}: no such row in published.csv; there are "
                        f"{', '.join(name or chr(34) * 2 for name in known)}"
                    )
        return rows

    def find(self, method: str, task: str, tuning: str, model: str = "-") -> pd.Series | None:
        """The row of a run with these choices, if the paper has one; UserError if it has several.

        Methods without training (zero-shot, ICL) have the tuning `none`; there `setting`, the
        amount of training data, is compared only if the paper gives it. A row without a task, such
        as one of memory, matches any task.
        """
        method, task, tuning = (self.names.get(name, name) for name in (method, task, tuning))
        rows = self.rows[self.rows["method"] == method]
        if self.model is None and model not in self.names and self.rows["model"].nunique() > 1:
            return None  # a model that the paper does not have
        if self.model is None and model in self.names:
            rows = rows[rows["model"] == self.names[model]]
        rows = _first(rows, "task", (task, ""))
        trained = rows[rows["tuning"] == tuning]
        if self.setting is not None:
            trained = trained[trained["setting"] == self.setting]
        if len(trained := self._measured(trained)):
            return self._only(trained, method, task)
        bare = self._measured(rows[rows["tuning"] == "none"])
        if self.setting is not None and (bare["setting"] == self.setting).any():
            bare = bare[bare["setting"] == self.setting]
        return self._only(bare, method, task) if len(bare) else None

    def _measured(self, rows: pd.DataFrame) -> pd.DataFrame:
        """Rows of the metric; a task that is judged by F1 alone has that for an accuracy."""
        return _first(
            rows, "metric", ("accuracy", "f1") if self.metric == "accuracy" else (self.metric,)
        )

    def _only(self, rows: pd.DataFrame, method: str, task: str) -> pd.Series:
        if len(rows) > 1:
            parts = [
                f"published.{key} ({', '.join(value or chr(34) * 2 for value in values)})"
                for key in ("table", "model", "setting")
                if len(values := sorted(set(rows[key]))) > 1
            ]
            raise UserError(
                f"{self.paper} has {len(rows)} numbers of {method} on {task}; "
                f"choose one by {' and '.join(parts)}"
            )
        return rows.iloc[0]


def _first(rows: pd.DataFrame, key: str, values: tuple[str, ...]) -> pd.DataFrame:
    """The rows with the first of the values that any row has."""
    there = set(rows[key])
    return rows[rows[key] == next((value for value in values if value in there), values[0])]


def published_of(suite: Suite) -> PublishedNumbers | None:
    """The runs' `published:` settings: None without a paper, UserError if there are two."""
    found: dict[str, dict[str, Any]] = {}
    for config in suite.configs.values():
        settings = config.get("published") or {}
        if settings.get("paper"):
            found.setdefault(repr(sorted(settings.items(), key=str)), settings)
    if not found:
        return None
    first, *others = found.values()
    for other in others:
        keys = [key for key in (*KEYS, "names") if other.get(key) != first.get(key)]
        raise UserError(
            f"the runs of suite '{suite.name}' disagree about published.{keys[0]}: "
            f"{first.get(keys[0])}, {other.get(keys[0])}; remove the runs of one of them"
        )
    return PublishedNumbers(
        paper=first["paper"],
        metric=first.get("metric") or "accuracy",
        names=first.get("names") or {},
        **{key: first.get(key) for key in ("table", "model", "setting")},
    )
