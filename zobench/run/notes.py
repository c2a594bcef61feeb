"""What a run tells of its rows: classes that are missing, texts of test that stand in train."""

import sys
from typing import Any

from zobench.tasks.problem import Noted, Problem


def note(problem: Problem, meta: dict[str, Any], *, aloud: bool) -> None:
    """Put the problem's notes into `meta`; if they are new there and aloud, say and log them."""
    notes = list(problem.notes) if isinstance(problem, Noted) else []
    if not notes or notes == meta.get("notes"):
        return
    meta["notes"] = notes
    for text in notes if aloud else []:
        print(f"warning: {meta['name']}: {text}", flush=True)
        print(f"warning: {text}", file=sys.stderr, flush=True)
