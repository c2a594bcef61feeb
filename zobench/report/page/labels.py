"""Short names for the settings of a suite: only their differences."""

import pandas as pd

from zobench.report.runs import Suite

_FIRST = ("optimizer", "task", "model", "tuning", "sampler", "estimator", "rule")


def labels(suite: Suite) -> dict[str, str]:
    """For each run, by id, its optimizer, the choices that differ, and config keys.

    Config keys are used only for settings with the same choices: optimizers differ in many keys.
    """
    keys = _telling(suite)
    names = _joined(suite.frame, keys)
    answer: dict[str, str] = {}
    for name, runs in suite.frame.groupby(names):
        apart = suite.differences(runs)
        for run, setting in zip(runs["id"], runs["setting"], strict=True):
            more = [apart[setting]] if len(apart) > 1 else []
            answer[run] = ", ".join([*([str(name)] if keys else []), *more]) or "run"
    return answer


def group_keys(suite: Suite) -> list[str]:
    """Choices and config keys to group runs by: those that `labels` are made of."""
    keys = _telling(suite)
    found: dict[str, None] = dict.fromkeys(keys)
    for _, runs in suite.frame.groupby(_joined(suite.frame, keys)):
        apart = suite.differences(runs)
        if len(apart) > 1:
            parts = [part.split("=")[0] for label in apart.values() for part in label.split(", ")]
            found |= dict.fromkeys(part for part in parts if "." in part)
    return list(found)


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
