"""`python -m zobench.launch FOLDER ...`: carry out the run whose config.yaml the folder holds.

Several folders are runs side by side (`zobench.run.together`).
"""

import sys
from pathlib import Path

from zobench.launch.attempt import ALREADY, Order, attempt
from zobench.run.folder import RunFolder


def main(argv: list[str]) -> int:
    """Exit status 0 for results, 1 for a failure, 75 for what was asked to stop."""
    folders = [RunFolder(Path(path)) for path in argv]
    if not folders or not all(folder.config.is_file() for folder in folders):
        print("usage: python -m zobench.launch FOLDER ... (with a config.yaml)", file=sys.stderr)
        return 2
    ending = attempt([Order(folder) for folder in folders])
    if ending.reason:
        print(f"{ending.reason}\n  log: {folders[0].log}", file=sys.stderr)
    return 0 if ending.status == ALREADY else ending.status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
