"""What a run tells its user: notes on its rows, and what all runs of a command say once."""

import os
import sys
from pathlib import Path
from typing import Any

from zobench.tasks.problem import Noted, Problem

COMMAND = "ZOBENCH_COMMAND"  # environment variable: the command's process, and a folder of its


def note(problem: Problem, meta: dict[str, Any], *, aloud: bool) -> None:
    """Put the problem's notes into `meta`; if they are new there and aloud, say and log them."""
    notes = list(problem.notes) if isinstance(problem, Noted) else []
    if not notes or notes == meta.get("notes"):
        return
    meta["notes"] = notes
    for text in notes if aloud else []:
        print(f"warning: {meta['name']}: {text}", flush=True)
        print(f"warning: {text}", file=sys.stderr, flush=True)


def tell_once(sentence: str) -> None:
    """Print what every run of the command may have to say, but only the first of them."""
    try:
        if folder := command_of()[1]:
            (Path(folder) / "told").touch(exist_ok=False)
    except FileExistsError:
        return
    except OSError:  # a run on another machine than the command's
        pass
    print(sentence, flush=True)


def command_of() -> tuple[str, str]:
    command, _, folder = os.environ.get(COMMAND, "").partition(":")
    return command, folder
