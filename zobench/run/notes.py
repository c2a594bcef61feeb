"""Messages to the user: notes on the data, and messages that all runs of a command print once."""

import hashlib
import os
import sys
from pathlib import Path
from typing import Any

from zobench.tasks.problem import Noted, Problem

LIVE = "ZOBENCH_LIVE"  # environment variable: the command shows how far its runs are
COMMAND = "ZOBENCH_COMMAND"  # environment variable: the command's process id and its folder


def note(problem: Problem, meta: dict[str, Any], *, aloud: bool) -> None:
    """Put the problem's notes into `meta`; if they are new, and `aloud`, print and log them."""
    notes = list(problem.notes) if isinstance(problem, Noted) else []
    if not notes or notes == meta.get("notes"):
        return
    meta["notes"] = notes
    for text in notes if aloud else []:
        print(f"warning: {meta['name']}: {text}", flush=True)
        print(f"warning: {text}", file=sys.stderr, flush=True)


def print_once(message: str) -> None:
    """Print a message, unless another run of the command has printed the same."""
    try:
        if folder := command_of()[1]:
            name = hashlib.sha1(message.encode()).hexdigest()
            (Path(folder) / f"printed-{name}").touch(exist_ok=False)
    except FileExistsError:
        return
    except OSError:  # the command is on another machine
        pass
    print(message, flush=True)


def command_of() -> tuple[str, str]:
    """The command's process id and folder; empty strings without a command."""
    command, _, folder = os.environ.get(COMMAND, "").partition(":")
    return command, folder
