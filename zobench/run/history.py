"""attempts.jsonl: who was at a run, when, and how each attempt ended."""

import json
import os
import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from zobench.run.fence import fence_of
from zobench.run.folder import RunFolder, read_json
from zobench.run.stop import REQUEUE


def note_begin(folders: Sequence[RunFolder]) -> None:
    """An attempt begins in this process. One without an end in the file was killed."""
    for folder in folders:
        _append(folder, {"event": "begun", "pid": os.getpid(), "host": platform.node()})


def note_end(folders: Sequence[RunFolder], status: int, kind: str, reason: str) -> None:
    """The attempt has ended; a failure with the end of its log, which the next attempt replaces."""
    for folder in folders:
        row: dict[str, Any] = {"event": "stopped" if status == REQUEUE else "failed"}
        if folder.result.is_file():
            row = {"event": folder.ended()["status"]}
        elif folder.failure.is_file():
            row |= {"tail": read_json(folder.failure)["tail"]}
        try:
            _append(folder, {**row, **({"kind": kind, "reason": reason} if kind else {})})
        except OSError:
            return  # the disk takes no more, which whoever launched the run is told otherwise


def _append(folder: RunFolder, row: dict[str, Any]) -> None:
    line = json.dumps({"time": datetime.now(UTC).isoformat(timespec="seconds"), **row})
    fence_of(folder.path).check()
    with folder.attempts.open("a", encoding="utf-8") as file:
        file.write(line + "\n")
