"""Formatting of numbers."""

import math
import re
from collections.abc import Mapping
from typing import Any

import pandas as pd

from zobench.errors import UserError


def is_share(metric: str) -> bool:
    """Whether a metric is a fraction that is shown in percent."""
    return metric.rsplit("/", 1)[-1] == "accuracy"


def numbers_in(values: Mapping[str, Any]) -> dict[str, float]:
    """Those of the values that are numbers, as floats."""
    return {
        key: float(value)
        for key, value in values.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }


def number(metric: str, value: float) -> str:
    """A formatted number: percent with one decimal for an accuracy, else four digits."""
    if value != value:
        return "-"
    if is_share(metric):
        return f"{100 * value:.1f}"
    return f"{value:.0f}" if 1e3 <= abs(value) < 1e9 else f"{value:.4g}"


def spread(metric: str, values: pd.Series) -> str:
    """`mean +- std`: the sample standard deviation of more than one number."""
    shown = number(metric, values.mean())
    return f"{shown} +- {number(metric, values.std())}" if len(values) > 1 else shown


def forwards_key(target: float) -> str:
    """Column of a run's forwards until it reached `target`, NaN if it never did."""
    return f"forwards_to_{target:g}"


def target_of(text: str) -> float:
    """A dev accuracy to be reached, as a number; UserError unless it is an accuracy."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value <= 1:
        raise UserError(f"target {text}: must be a dev accuracy as a fraction, such as 0.9")
    return value


def counts(values: pd.Series) -> str:
    """One whole number, or the smallest and the largest of several."""
    low, high = (number("", value) for value in (values.min(), values.max()))
    return low if low == high else f"{low} to {high}"


def order(label: str) -> list[tuple[int, float, str]]:
    """Numbers by size, then words by letter, in every part of `a, b` and `key=a, other=b`."""

    def place(part: str) -> tuple[int, float, str]:
        try:
            return 0, float(part), part
        except ValueError:
            return 1, 0.0, part

    return [place(part) for part in re.split(", |=", label)]
