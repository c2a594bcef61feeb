"""Batches in smaller parts, for a run that was out of memory: the same batches, loss and data."""

from collections.abc import Mapping
from typing import Any


def smaller(settings: Mapping[str, Any], times: int) -> dict[str, Any]:
    """The settings with parts of batches halved so many times, down to single examples.

    A step's batch stays what it is, evaluated in parts whose mean is exact; numbers may differ in
    their last bits.
    """
    if not times:
        return dict(settings)
    train, evaluation = settings["train"], settings["evaluation"]
    part = train["micro_batch_size"] or train["batch_size"]
    return {
        **settings,
        "train": {**train, "micro_batch_size": max(1, part >> times)},
        "evaluation": {**evaluation, "batch_size": max(1, evaluation["batch_size"] >> times)},
    }


def can_be_smaller(settings: Mapping[str, Any], times: int) -> bool:
    """Whether halving once more changes anything; what is captured on a GPU takes no parts."""
    if settings["optimizer"].get("graph"):
        return False
    return smaller(settings, times + 1) != smaller(settings, times)
