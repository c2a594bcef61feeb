"""TensorBoard: the rows of metrics.jsonl as scalars, settings and scores as hyperparameters."""

import json
import math
from collections.abc import Mapping, Sequence

from zobench.run.fence import fence_of
from zobench.run.folder import RunFolder
from zobench.run.loggers.base import Plain, Row, require
from zobench.run.loggers.wandb_config import values_of, wandb_config

_FLUSH_SECONDS = 10


class TensorBoardLogger:
    """Writes `tensorboard/` into the run folder: `tensorboard --logdir runs/SUITE` shows a suite.

    The x axis is the step. A relaunch writes the folder anew, with the rows of all attempts.

    Raises:
        UserError: without the package `tensorboard`.
    """

    def __init__(self) -> None:
        require("tensorboard", "tensorboard")

    def begin(self, folder: RunFolder, settings: Plain, meta: Plain, rows: Sequence[Row]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        place = folder.path / "tensorboard"
        fence_of(folder.path).remove(place)
        self._writer = SummaryWriter(str(place), flush_secs=_FLUSH_SECONDS)
        config = wandb_config(settings, meta)
        self._hyperparameters = values_of(config)
        shown = json.dumps(config["settings"], indent=1)
        self._writer.add_text("settings", f"```json\n{shown}\n```")
        for row in rows:
            self.log(row)

    def log(self, row: Row) -> None:
        step = int(row["step"] or 0)
        for key, value in row.items():
            if key != "step":
                self._writer.add_scalar(key, math.nan if value is None else value, step)

    def end(self, result: Plain) -> None:
        from torch.utils.tensorboard.summary import hparams

        scores = {
            f"result/{part}/{key}": value
            for part in ("dev", "test")
            if isinstance(values := result.get(part), Mapping)
            for key, value in values.items()
            if isinstance(value, int | float)
        }
        writer = self._writer.file_writer
        assert writer is not None  # until the writer is closed
        for summary in hparams(self._hyperparameters, scores):
            writer.add_summary(summary)
        for key, value in scores.items():
            self._writer.add_scalar(key, value, 0)
        self._writer.close()

    def abort(self) -> None:
        self._writer.close()
