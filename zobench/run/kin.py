"""Which runs can be trained side by side: those that differ in seed and optimizer alone."""

import json
from collections.abc import Mapping
from typing import Any

from zobench.run.identity import canonical

_SHARED = ("model", "task", "train", "evaluation", "budget", "device", "threads")


def kin(settings: Mapping[str, Any]) -> str | None:
    """What the settings share with those that they can be trained beside; None for none.

    A tuning's seed may differ, since it draws the first values of what trains. Left to itself is a
    run that counts seconds, evaluates batches in parts, looks at gradients or captures its steps.
    """
    train, budget = settings["train"], settings["budget"]
    if budget["steps"] is None or train["micro_batch_size"] or settings["diagnose"]["every"]:
        return None
    if settings["optimizer"].get("graph"):
        return None
    shared = {part: settings[part] for part in _SHARED}
    shared["tuning"] = {k: v for k, v in settings["tuning"].items() if k != "seed"}
    return json.dumps(canonical(shared), sort_keys=True)
