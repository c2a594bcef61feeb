"""A run in Weights & Biases; `zobench.run.loggers.wandb` handles its failures."""

import csv
import gzip
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zobench.run.fence import fence_of
from zobench.run.folder import RunFolder
from zobench.run.loggers.base import Plain, Row
from zobench.run.loggers.wandb_agent import asked_for
from zobench.run.loggers.wandb_config import id_of, names_of, wandb_config

_AXES = ("step", "cost/forwards", "cost/tokens", "time/train_s")
_INIT_SECONDS, _FINISH_SECONDS = 60.0, 300.0  # time limits for the server's answers
_EXTREMES = {"dev/loss": "min", "dev/accuracy": "max", "memory/peak_gib": "max"}


@dataclass(kw_only=True)
class Mirror:
    """Mirrors a run into W&B under the id in its folder; a relaunch continues it without repeats.

    The suite is the group, the optimizer the job type. Metrics can be plotted against the step (the
    default), forwards, tokens or seconds of training. During the run the summary has the last value
    of each metric, and the best dev scores and the largest memory as `.min` and `.max`; then it has
    the result, as in result.json. mode: online, offline or disabled. predictions: also log each
    test example's answer.
    """

    project: str
    entity: str | None
    mode: Any
    tags: Sequence[str]
    predictions: bool

    def begin(self, folder: RunFolder, settings: Plain, meta: Plain, rows: Sequence[Row]) -> None:
        import wandb

        # Files of an earlier attempt may be incomplete; `rows` are sent again unless the server
        # has them.
        fence_of(folder.path).remove(folder.path / "wandb")

        self._folder = folder
        names: Any = names_of(meta)  # arguments of wandb.init
        place: Any = {"id": id_of(folder, meta), "project": self.project, "entity": self.entity}
        self._run = wandb.init(
            **({} if asked_for() else place),  # a sweep has them in the environment
            mode=self.mode,
            **names,
            tags=list(self.tags),
            config=wandb_config(settings, meta),
            dir=str(folder.path),
            resume="allow",
            settings=wandb.Settings(
                silent=True,
                console="off",
                init_timeout=_INIT_SECONDS,
                finish_timeout=_FINISH_SECONDS,  # the rest stays on disk
                finish_timeout_raises=True,
            ),
        )
        for axis in _AXES:
            self._run.define_metric(axis)
        self._run.define_metric("*", step_metric="step")
        for key, extreme in _EXTREMES.items():
            self._run.define_metric(key, step_metric="step", summary=extreme)
        self._to_skip = self._run.step  # rows that the server has already
        for row in rows:
            self.log(row)

    def log(self, row: Row) -> None:
        if self._to_skip > 0:
            self._to_skip -= 1
            return
        self._run.log({k: math.nan if v is None else v for k, v in row.items()})

    def end(self, result: Plain) -> None:
        if self.predictions and self._folder.predictions.is_file():
            self._run.log({"predictions": _table(self._folder.predictions)})
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


def _table(path: Path) -> Any:
    """predictions.csv.gz as a W&B table with numeric rows and scores."""
    import wandb

    with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
        header, *lines = csv.reader(file)
    data = [[int(row), answer, gold, float(score)] for row, answer, gold, score in lines]
    return wandb.Table(columns=header, data=data)
