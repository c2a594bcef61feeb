"""Settings with which no run could work: numbers out of their range, names that are none."""

import math
from collections.abc import Mapping
from typing import Any

from zobench.errors import UserError
from zobench.names import plain_name
from zobench.run.early_ends import POLICIES

_MOST = 2**63 - 1  # what an int64 holds
_AT_LEAST_ONE = (
    ("train", "batch_size"),
    ("train", "log_every"),
    ("train", "eval_every"),
    ("evaluation", "batch_size"),
)


def check_ranges(settings: Mapping[str, Any]) -> None:
    """Raise UserError for a number of ours that no run could work with."""
    _check_numbers(settings)
    _check_sizes(settings["task"])
    if settings["train"]["final_lr"] < 0:
        raise UserError(f"train.final_lr={settings['train']['final_lr']}: must not be negative")
    for part, name in _AT_LEAST_ONE:
        if settings[part][name] < 1:
            raise UserError(f"{part}.{name}={settings[part][name]}: must be at least 1")
    if (parts := settings["train"]["micro_batch_size"]) is not None and parts < 1:
        raise UserError(f"train.micro_batch_size={parts}: must be at least 1, or null")
    if (rise := settings["train"]["warmup"]) is not None and rise < 0:
        raise UserError(f"train.warmup={rise}: must not be negative, or null")
    if (precision := settings["train"]["precision"]) not in (None, "bfloat16"):
        raise UserError(f"train.precision={precision}: choose bfloat16 or null")
    if (chosen := settings["train"]["select"]) not in (None, "last"):
        raise UserError(f"train.select={chosen}: choose last, or null for the best on dev")
    if (policy := settings["train"]["nonfinite"]) not in POLICIES:
        raise UserError(f"train.nonfinite={policy}: choose stop, skip, or null for stop")
    if (most := settings["train"]["diverged_above"]) is not None and not most > 1:
        raise UserError(f"train.diverged_above={most}: must be above 1, or null")
    if (wait := settings["train"]["patience"]) is not None and wait < 1:
        raise UserError(f"train.patience={wait}: must be at least 1, or null")
    if (norm := settings["train"]["grad_clip"]) is not None and not norm > 0:
        raise UserError(f"train.grad_clip={norm}: must be above 0, or null")
    for name, between in settings["checkpoint"].items():
        if between is not None and name != "beside_ledger" and not between > 0:
            raise UserError(f"checkpoint.{name}={between}: must be above 0, or null")
    if (every := settings["ranks"]["check_every"]) is not None and every < 1:
        raise UserError(f"ranks.check_every={every}: must be at least 1, or null")
    for kind, most in settings["retries"].items():
        if most < 0:
            raise UserError(f"retries.{kind}={most}: must not be negative")
    every = settings["diagnose"]["every"]
    if every is not None and every < 1:
        raise UserError(f"diagnose.every={every}: must be at least 1, or null")
    if settings["runs_per_gpu"] < 1:
        raise UserError(f"runs_per_gpu={settings['runs_per_gpu']}: must be at least 1")
    if settings["threads"] is not None and settings["threads"] < 1:
        raise UserError(f"threads={settings['threads']}: must be at least 1, or null")
    if (most := settings["pack_runs"]) is not None and most < 2:
        raise UserError(f"pack_runs={most}: must be at least 2, or null")
    plain_name("suite", settings["suite"])


def _check_numbers(node: Any, key: str = "") -> None:
    """Raise UserError naming the key of a number that is not finite, too large, or a bad seed."""
    if isinstance(node, Mapping):
        for name, value in node.items():
            _check_numbers(value, f"{key}.{name}" if key else str(name))
    elif isinstance(node, list):
        for place, value in enumerate(node):
            _check_numbers(value, f"{key}.{place}")
    elif isinstance(node, float) and not math.isfinite(node):
        raise UserError(f"{key}={node}: must be a finite number")
    elif isinstance(node, int) and abs(node) > _MOST:
        raise UserError(f"{key}={node}: too large, the most is {_MOST}")
    elif isinstance(node, int) and key.endswith("seed") and node < 0:
        raise UserError(f"{key}={node}: must not be negative")


def _check_sizes(task: Mapping[str, Any]) -> None:
    """Raise UserError for a number of examples that is none; null is all there are."""
    sizes = task.get("sizes")
    if not isinstance(sizes, Mapping):
        return
    for split, size in sizes.items():
        least = 1 if split == "train" else 0
        if size is not None and (type(size) is not int or size < least):
            raise UserError(f"task.sizes.{split}={size}: must be a whole number from {least} up")
