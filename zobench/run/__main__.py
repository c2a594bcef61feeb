"""`python -m zobench.run FOLDER`: carry out the run whose config.yaml the folder holds."""

import faulthandler
import sys
import traceback
from pathlib import Path

from zobench.errors import UserError
from zobench.run.folder import RunFolder, write_json
from zobench.run.runner import run


def main(argv: list[str]) -> int:
    """Exit status 0 for a result, 1 for a failure, which `failure.json` and stderr describe."""
    if len(argv) != 1 or not RunFolder(Path(argv[0])).config.is_file():
        print("usage: python -m zobench.run FOLDER (with a config.yaml)", file=sys.stderr)
        return 2
    faulthandler.enable()
    folder = RunFolder(Path(argv[0]))
    try:
        run(folder)
    except Exception as error:
        known = isinstance(error, UserError)
        text = " ".join(str(error).split())
        reason = text if known else f"{type(error).__name__}: {text}"[:300]
        kind = "input" if known else "crash"
        write_json(folder.failure, {"kind": kind, "reason": reason, "log": str(folder.log)})
        traceback.print_exc()
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
