"""MLflow: the rows of metrics.jsonl as metrics of a run, settings as its parameters."""

import math
import os
import time
from collections.abc import Iterator, Sequence
from typing import Any

from zobench.run.folder import RunFolder
from zobench.run.loggers.base import Plain, Row, require
from zobench.run.loggers.wandb_config import values_of, wandb_config

_TAG = "zobench.id"
_PARAMETERS = 100  # that a call takes


class MlflowLogger:
    """Mirrors a run into an MLflow experiment named as the suite.

    A relaunch replaces the run there by one with the rows of all attempts.

    Args:
        uri: a tracking server or database; null: files in `mlruns/` of the suite, which
            `mlflow ui --backend-store-uri runs/SUITE/mlruns` shows.

    Raises:
        UserError: without the package `mlflow`.
    """

    def __init__(self, *, uri: str | None = None) -> None:
        require("mlflow", "mlflow")
        self.uri = uri

    def begin(self, folder: RunFolder, settings: Plain, meta: Plain, rows: Sequence[Row]) -> None:
        # MLflow asks for consent to its file store, and would send usage data over the network.
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        from mlflow.entities import Param
        from mlflow.tracking import MlflowClient

        place = (folder.path.parent / "mlruns").resolve().as_uri()
        self._client = MlflowClient(tracking_uri=self.uri or place)
        experiment = self._experiment(str(meta["suite"]))
        for earlier in self._client.search_runs([experiment], f"tags.`{_TAG}` = '{meta['id']}'"):
            self._client.delete_run(earlier.info.run_id)
        tags = {_TAG: str(meta["id"])}
        run = self._client.create_run(experiment, run_name=meta["name"], tags=tags)
        self._id: str = run.info.run_id
        values = values_of(wandb_config(settings, meta))
        # The file store has a folder for what is before a slash, and `model` is a file there.
        parameters = [Param(key.replace("/", "."), str(value)) for key, value in values.items()]
        for start in range(0, len(parameters), _PARAMETERS):
            self._client.log_batch(self._id, params=parameters[start : start + _PARAMETERS])
        for row in rows:
            self.log(row)

    def log(self, row: Row) -> None:
        self._client.log_batch(self._id, metrics=list(_metrics(row)))

    def end(self, result: Plain) -> None:
        self._client.set_tag(self._id, "status", str(result["status"]))
        self._client.set_terminated(self._id, "FINISHED")

    def abort(self) -> None:
        self._client.set_terminated(self._id, "FAILED")

    def _experiment(self, name: str) -> str:
        """The id of the experiment, which another process may make at the same time."""
        from mlflow.exceptions import MlflowException

        if (found := self._client.get_experiment_by_name(name)) is None:
            try:
                return str(self._client.create_experiment(name))
            except MlflowException:
                found = self._client.get_experiment_by_name(name)
                if found is None:
                    raise
        return str(found.experiment_id)


def _metrics(row: Row) -> Iterator[Any]:
    from mlflow.entities import Metric

    now, step = int(1000 * time.time()), int(row["step"] or 0)
    for key, value in row.items():
        if key != "step":
            yield Metric(key, math.nan if value is None else value, now, step)
