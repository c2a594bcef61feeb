"""Weights & Biases, offline unless the user is logged in; its failures do not end a run."""

import contextlib
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

from zobench.environment import reason_of, refused
from zobench.run.folder import RunFolder
from zobench.run.loggers.base import Logger, Plain, Row
from zobench.run.loggers.mirror import Mirror
from zobench.run.loggers.none import NoLogger
from zobench.run.loggers.wandb_config import check_place, tags_of


class WandbLogger:
    """A `Mirror`; if it fails, an offline one replaces it, and if that fails, none.

    An outage, a bad key or a missing package is reported once on stderr; an offline mirror has all
    rows, and `zobench sync` uploads it. Tags and environment variables that W&B rejects are
    reported and left out. The other arguments are Mirror's.

    Args:
        mode: online, offline, disabled or null: WANDB_MODE if set, else online with an API key,
            else offline.
        tags: added to task, model and tuning.

    Raises:
        UserError: for a project, entity or mode that W&B rejects.
    """

    def __init__(
        self,
        *,
        project: str,
        entity: str | None,
        mode: str | None,
        tags: Sequence[str],
        predictions: bool = False,
    ) -> None:
        check_place(project, entity, mode)
        self.mode, self.tags = mode, tags
        self._options: dict[str, Any] = {"project": project, "entity": entity}
        self._options["predictions"] = predictions
        self._mirror: Logger = NoLogger()
        self._now = "offline"
        self._rows: list[Row] = []

    def begin(self, folder: RunFolder, settings: Plain, meta: Plain, rows: Sequence[Row]) -> None:
        self._about, self._rows = (folder, settings, meta), list(rows)
        self._options["tags"], left_out = tags_of(meta["choices"], self.tags)
        for message in left_out:
            _warn(message)
        mode = "offline"
        try:
            no_server = _drop_refused_variables()
            mode = self.mode or os.environ.get("WANDB_MODE") or _default_mode()
            self._start("offline" if no_server and mode == "online" else mode)
        except Exception as error:
            self._fall_back(mode, error)

    def log(self, row: Row) -> None:
        self._rows.append(row)
        self._try(lambda mirror: mirror.log(row))

    def end(self, result: Plain) -> None:
        if self._try(lambda mirror: mirror.end(result)):
            self._try(lambda mirror: mirror.end(result))  # its replacement

    def abort(self) -> None:
        with contextlib.suppress(Exception):  # the run has already failed
            self._mirror.abort()

    def _start(self, mode: str) -> None:
        mirror = Mirror(mode=mode, **self._options)
        mirror.begin(*self._about, self._rows)
        self._mirror, self._now = mirror, mode

    def _try(self, call: Callable[[Logger], None]) -> bool:
        """Call the mirror; returns whether it failed and was replaced."""
        try:
            call(self._mirror)
        except Exception as error:
            self.abort()
            self._fall_back(self._now, error)
            return True
        return False

    def _fall_back(self, mode: str, error: Exception) -> None:
        """Restart offline with all rows so far, or go on without a mirror; report it."""
        self._mirror = NoLogger()
        missing = isinstance(error, ImportError)
        then = "not mirrored" if missing or mode == "offline" else "mirrored offline"
        _warn(f"{reason_of(error)}; the run continues and is {then}")
        if then == "mirrored offline":
            try:
                import wandb

                wandb.teardown()  # W&B's process would keep the id of the failed run
                self._start("offline")
            except Exception as other:
                self._fall_back("offline", other)


def _drop_refused_variables() -> bool:
    """Unset the environment variables that W&B rejects; whether its server's address is one."""
    import wandb

    rejected = list(refused("WANDB_", lambda one: wandb.Settings().update_from_env_vars(one)))
    for name, reason in rejected:
        value = os.environ.pop(name)
        shown = f"={value}" if name == "WANDB_MODE" else ""
        _warn(f"{name}{shown}: {reason}; it is ignored")
    return any(name == "WANDB_BASE_URL" for name, _ in rejected)


def _warn(message: str) -> None:
    print(f"W&B: {message}", file=sys.stderr, flush=True)


def _default_mode() -> str:
    import wandb

    # login() finds a key in the environment, the settings or .netrc, without a prompt; unless it is
    # silent, it also asks the server for the key's owner, and waits if there is no server
    wandb.setup(settings=wandb.Settings(silent=True))
    return "online" if wandb.login(prompt=False, verify=False) else "offline"
