"""What makes a run the run it is: its settings, never the time or place it ran."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

_PARTS = ("model", "tuning", "task", "optimizer", "train", "evaluation", "seed")


def identity(settings: Mapping[str, Any]) -> str:
    """Eight hex digits: the hash of the settings that can change a run's numbers.

    Nulls are dropped, so a new optional setting does not rename older runs.
    """
    parts = canonical({part: settings[part] for part in _PARTS})
    # Where older runs have their steps; what a budget in forwards pays for is in them, too.
    parts["train"] |= canonical({key: settings["budget"][key] for key in ("steps", "seconds")})
    arithmetic = parts["optimizer"].get("arithmetic")
    if isinstance(arithmetic, dict) and arithmetic.get("rounding") == "compensated":
        arithmetic["walk"] = "scratch"  # which older runs took
    if diagnosed := canonical(settings["diagnose"]):
        parts["diagnose"] = diagnosed
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"))
    return hashlib.sha1(text.encode()).hexdigest()[:8]


def canonical(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: canonical(v) for k, v in value.items() if v is not None}
    if isinstance(value, float) and value.is_integer():
        return int(value)  # lr=1 and lr=1.0 are one setting
    if isinstance(value, list | tuple):
        return [canonical(item) for item in value]
    return value
