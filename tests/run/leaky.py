"""A logger that fails with every secret of the environment in its message."""

import os
import sys
from typing import Any

from zobench.run.loggers.none import NoLogger


class Leaky(NoLogger):
    """Prints them, too."""

    def begin(self, *_: Any) -> None:
        secrets = os.environ["WANDB_API_KEY"], os.environ["HF_TOKEN"], os.environ["MY_PASSWORD"]
        print("warning:", *secrets, file=sys.stderr)
        raise RuntimeError(f"could not log in with {secrets}")
