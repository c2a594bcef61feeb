"""`python -m zobench.run FOLDER ...`: carry out the run whose config.yaml the folder holds.

Several folders are runs side by side (`zobench.run.together`).
"""

import faulthandler
import sys
import traceback
from pathlib import Path

import torch

from zobench.errors import UserError
from zobench.run.folder import RunFolder, write_json
from zobench.run.ranks.group import Lost, here
from zobench.run.runner import run
from zobench.run.stop import REQUEUE, Stop, Stopped
from zobench.run.together import run_together


def main(argv: list[str]) -> int:
    """Exit status 0 for results, 1 for a failure, which `failure.json` and stderr describe.

    75 (EX_TEMPFAIL) for what was asked to stop, and goes on when it is started again.
    """
    folders = [RunFolder(Path(path)) for path in argv]
    if not folders or not all(folder.config.is_file() for folder in folders):
        print("usage: python -m zobench.run FOLDER ... (with a config.yaml)", file=sys.stderr)
        return 2
    faulthandler.enable()
    try:
        with Stop() as stop:
            if len(folders) == 1:
                run(folders[0], stop, here())
            else:
                run_together(folders)
    except Stopped as asked:
        print(f"stopped by {asked}; started again, the run goes on", file=sys.stderr)
        return REQUEUE
    except Lost as lost:
        if not folders[0].failure.is_file():  # which the other rank may have written
            failure = {"kind": "killed", "reason": str(lost), "log": str(folders[0].log)}
            write_json(folders[0].failure, failure)
        traceback.print_exc()
        return 1
    except Exception as error:
        kind, reason = _described(error)
        failure = {"kind": kind, "reason": reason, "log": str(folders[0].log)}
        for folder in folders:
            if not folder.result.is_file():
                write_json(folder.failure, failure)
        traceback.print_exc()
        return 1
    return 0


def _described(error: Exception) -> tuple[str, str]:
    """Kind and one-line reason of a failure: input, memory (of the GPU or the machine) or crash."""
    text = " ".join(str(error).split())
    if isinstance(error, UserError):
        return "input", text
    refused = "can't allocate memory" in text  # torch's words for a CPU's; it has no type for it
    if refused or isinstance(error, MemoryError | torch.OutOfMemoryError):
        return "memory", text.split(" Including ")[0][:300] or "out of memory"
    return "crash", f"{type(error).__name__}: {text}"[:300]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
