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
    parts = _without_nulls({part: settings[part] for part in _PARTS})
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"))
    return hashlib.sha1(text.encode()).hexdigest()[:8]


def _without_nulls(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: _without_nulls(v) for k, v in value.items() if v is not None}
    if isinstance(value, list | tuple):
        return [_without_nulls(item) for item in value]
    return value
