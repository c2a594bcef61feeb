"""Short names for the settings of a suite: only their differences."""

import pandas as pd

from zobench.report.runs import Suite

_FIRST = ("optimizer", "task", "model", "tuning", "sampler", "estimator", "rule")


def labels(suite: Suite) -> dict[str, str]:
    """For each run, by id, its optimizer, the choices that differ, and config keys.

    Config keys are used only for settings with the same choices: optimizers differ in many keys.
    """
    names = _joined(suite.frame, _telling(suite))
    found = zip(suite.frame["id"], names, suite.apart(names), strict=True)
    return {run: ", ".join(filter(None, parts)) or "run" for run, *parts in found}


def group_keys(suite: Suite) -> list[str]:
    """Choices and config keys to group runs by: those that `labels` are made of."""
    keys = _telling(suite)
    apart = suite.apart(_joined(suite.frame, keys))
    found = [part.split("=")[0] for label in apart for part in label.split(", ")]
    return list(dict.fromkeys([*keys, *(key for key in found if "." in key)]))


def _telling(suite: Suite) -> list[str]:
    """The choices that split the runs further, the familiar ones first; always the optimizer."""
    groups = sorted(
        (key for key in suite.choices if not key.startswith("tuned") and key != "logger"),
        key=lambda key: (_FIRST.index(key) if key in _FIRST else len(_FIRST), key),
    )
    telling = ["optimizer"] if "optimizer" in groups else []
    for key in groups:
        more = [*telling, key]
        if _joined(suite.frame, more).nunique() > _joined(suite.frame, telling).nunique():
            telling.append(key)
    return list(dict.fromkeys(telling))


def _joined(frame: pd.DataFrame, keys: list[str]) -> pd.Series:
    """The values of some columns as one text per row."""
    if not keys:
        return pd.Series("", index=frame.index)
    return frame[keys].astype(str).agg(", ".join, axis=1)
