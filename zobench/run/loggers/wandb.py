"""Weights & Biases, offline unless the user is logged in; whatever fails there, the run goes on."""

import contextlib
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from zobench.environment import reason_of, refused
from zobench.run.folder import RunFolder
from zobench.run.loggers.base import Logger
from zobench.run.loggers.mirror import Mirror
from zobench.run.loggers.none import NoLogger
from zobench.run.loggers.wandb_config import check_place, tags_of


class WandbLogger:
    """A `Mirror` that is replaced by an offline one when it fails, and by none when that fails.

    mode: online, offline, disabled or null: WANDB_MODE if set, else online with an API key at hand,
    else offline. An outage, a bad key or a missing package is said once on stderr; an offline
    mirror has all rows, and `zobench sync` uploads it. tags: more than task, model and tuning. A
    tag or an environment variable that W&B does not take is named and left out; a project, an
    entity or a mode raises UserError. The other arguments are Mirror's.
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
        self._rows: list[Mapping[str, float | None]] = []

    def begin(
        self,
        folder: RunFolder,
        settings: Mapping[str, Any],
        meta: Mapping[str, Any],
        rows: Sequence[Mapping[str, float | None]],
    ) -> None:
        self._about, self._rows = (folder, settings, meta), list(rows)
        self._options["tags"], left_out = tags_of(meta["choices"], self.tags)
        for sentence in left_out:
            _say(sentence)
        mode = "offline"
        try:
            unsent = _without_refused()
            mode = self.mode or os.environ.get("WANDB_MODE") or _default_mode()
            self._start("offline" if unsent and mode == "online" else mode)
        except Exception as error:
            self._instead(mode, error)

    def log(self, row: Mapping[str, float | None]) -> None:
        self._rows.append(row)
        self._try(lambda mirror: mirror.log(row))

    def end(self, result: Mapping[str, Any]) -> None:
        if self._try(lambda mirror: mirror.end(result)):
            self._try(lambda mirror: mirror.end(result))  # what came in its place

    def abort(self) -> None:
        with contextlib.suppress(Exception):  # the run has failed for a reason of its own
            self._mirror.abort()

    def _start(self, mode: str) -> None:
        mirror = Mirror(mode=mode, **self._options)
        mirror.begin(*self._about, self._rows)
        self._mirror, self._now = mirror, mode

    def _try(self, tell: Callable[[Logger], None]) -> bool:
        """Tell the mirror; whether it failed, and another has taken its place."""
        try:
            tell(self._mirror)
        except Exception as error:
            self.abort()
            self._instead(self._now, error)
            return True
        return False

    def _instead(self, mode: str, error: Exception) -> None:
        """Begin anew offline with all rows so far, or do without; say so."""
        self._mirror = NoLogger()
        missing = isinstance(error, ImportError)
        then = "not mirrored" if missing or mode == "offline" else "mirrored offline"
        _say(f"{reason_of(error)}; the run goes on and is {then}")
        if then == "mirrored offline":
            try:
                _forget()
                self._start("offline")
            except Exception as other:
                self._instead("offline", other)


def _without_refused() -> bool:
    """Take away the environment variables that W&B would stop at; whether its server is one."""
    import wandb

    named = list(refused("WANDB_", lambda one: wandb.Settings().update_from_env_vars(one)))
    for name, reason in named:
        value = os.environ.pop(name)
        shown = f"={value}" if name == "WANDB_MODE" else ""
        _say(f"{name}{shown}: {reason}; it is ignored")
    return any(name == "WANDB_BASE_URL" for name, _ in named)


def _say(sentence: str) -> None:
    print(f"W&B: {sentence}", file=sys.stderr, flush=True)


def _forget() -> None:
    """End W&B's own process, which holds on to the id of a run that did not come about."""
    import wandb

    wandb.teardown()


def _default_mode() -> str:
    import wandb

    # login() looks for a key in the environment, the settings and .netrc and asks nobody; when it
    # is not silent it also asks the server who the key belongs to, and waits where there is none
    wandb.setup(settings=wandb.Settings(silent=True))
    return "online" if wandb.login(prompt=False, verify=False) else "offline"
