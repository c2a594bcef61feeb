"""Weights & Biases, offline unless the user is logged in."""

import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

from zobench.run.folder import RunFolder

_AXES = ("step", "cost/forwards", "cost/tokens")


class WandbLogger:
    """Mirrors a run into W&B under the run's own id, so that relaunching continues it.

    mode: online, offline, disabled or null: WANDB_MODE if set, else online with an API key at hand,
    else offline. The suite is the group, the task the job type, model and optimizer are tags.
    """

    def __init__(
        self, *, project: str, entity: str | None, mode: str | None, tags: Sequence[str]
    ) -> None:
        self.project, self.entity, self.mode, self.tags = project, entity, mode, list(tags)

    def begin(
        self, folder: RunFolder, settings: Mapping[str, Any], meta: Mapping[str, Any]
    ) -> None:
        import wandb

        mode: Any = self.mode or os.environ.get("WANDB_MODE") or _default_mode()
        choices = meta["choices"]
        self._run = wandb.init(
            project=self.project,
            entity=self.entity,
            mode=mode,
            id=meta["id"],
            name=meta["name"],
            group=meta["suite"],
            job_type=choices["task"],
            tags=[choices["model"], choices["tuning"], choices["optimizer"], *self.tags],
            config={**settings, "meta": dict(meta)},
            dir=str(folder.path),
            resume="allow",
            settings=wandb.Settings(silent=True, console="off"),
        )
        for axis in _AXES:
            self._run.define_metric(axis)
        self._run.define_metric("*", step_metric="step")

    def log(self, row: Mapping[str, float | None]) -> None:
        self._run.log({k: math.nan if v is None else v for k, v in row.items()})

    def end(self, result: Mapping[str, Any]) -> None:
        for part, values in result.items():
            if isinstance(values, Mapping):
                self._run.summary.update({f"{part}/{k}": v for k, v in values.items()})
            else:
                self._run.summary[part] = values
        self._finish(exit_code=0)

    def abort(self) -> None:
        self._finish(exit_code=1)

    def _finish(self, exit_code: int) -> None:
        import wandb

        self._run.finish(exit_code=exit_code)
        # finish() may return before W&B's own process has written an offline run to disk
        wandb.teardown()


def _default_mode() -> str:
    import wandb

    # looks for a key in the environment, the settings and .netrc; never asks, never goes online
    return "online" if wandb.login(prompt=False, verify=False) else "offline"
