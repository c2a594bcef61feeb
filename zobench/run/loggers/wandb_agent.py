"""What an agent of a W&B sweep puts into the environment of the command that it starts.

`wandb agent` names the W&B run that the command reports to, the sweep, and a file with the run's
parameters; `wandb.init` takes all three from the environment, whatever its arguments are.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from zobench.run.folder import RunFolder, read_json
from zobench.settings import RunSettings

_RUN, _SWEEP = "WANDB_RUN_ID", "WANDB_SWEEP_ID"
_VARIABLES = (_RUN, _SWEEP, "WANDB_SWEEP_PARAM_PATH")


def asked_for() -> str | None:
    """The id of the W&B run that an agent waits for; None if no agent started this command."""
    return os.environ.get(_RUN) if os.environ.get(_SWEEP) else None


def lacks_report(folder: RunFolder, settings: RunSettings) -> bool:
    """Whether an agent asks for a finished run that was reported to another W&B run."""
    run = asked_for()
    asked = run is not None and "wandb" in settings.logger and folder.finished
    return asked and read_json(folder.meta).get("wandb") != run


def leave() -> None:
    """Remove the agent's variables, for a command whose runs have W&B runs of their own."""
    for name in _VARIABLES:
        os.environ.pop(name, None)


@contextmanager
def left() -> Iterator[None]:
    """Without the agent's variables inside the block."""
    before = {name: os.environ[name] for name in _VARIABLES if name in os.environ}
    leave()
    try:
        yield
    finally:
        os.environ.update(before)
