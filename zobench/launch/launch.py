"""Launch one run: skip it, or start it in a separate process, and report its outcome."""

import math
import os
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from zobench.errors import UserError
from zobench.launch import launch_log, signals
from zobench.launch.job import DATA, MEMORY, Job, Outcome
from zobench.launch.process import run_jobs
from zobench.names import lower_is_better
from zobench.run.export import lacks_export
from zobench.run.folder import HALVED, RunFolder, read_json
from zobench.run.inputs import check_unchanged
from zobench.run.loggers.wandb_agent import asked_for, lacks_report
from zobench.run.notes import LIVE
from zobench.run.ranks.group import started
from zobench.run.stop import REQUEUE, Stop, Stopped
from zobench.settings import RunSettings


def launch(job: Job) -> float | None:
    """Run the job unless its result exists; failed and unfinished runs resume.

    If the result belongs to other data or another model, the job fails. In a process that launches
    runs for a command, a stopped run saves and is reported. After a failure with
    `stop_at_failure`, nothing begins. Returns what a sweeper that searches needs: the run's
    `optimized_metric`, infinitely bad for a diverged run, None without a result.
    """
    if launch_log.stops(launch_log.own()) and not job.folder.finished:
        return None
    helper = signals.helper()
    if helper is None:
        _launch(job)
    elif not helper.stopping():
        if helper.queued_as is not None:  # for `zobench.launchers`, which reports lost jobs
            begun = {"run": job.folder.path.name, "status": "begun", "job": helper.queued_as}
            launch_log.note({**begun, "folder": str(job.folder.path.resolve())})
        try:
            with Stop(helper.signals):
                _launch(job)
        except Stopped:
            helper.requeue()
            report(Outcome.stopped(job.folder), job.folder)
    return _optimized(job)


def _optimized(job: Job) -> float | None:
    if not job.folder.finished:
        return None
    metric, result = job.settings.optimized_metric, job.folder.ended()
    if result["status"] != "done":
        return math.inf if lower_is_better(metric) else -math.inf
    dev: dict[str, float] = result.get("dev") or {}
    value = dev.get(metric.removeprefix("dev/"))
    if value is None and metric != RunSettings.optimized_metric:
        known = ", ".join(f"dev/{name}" for name in dev) or "none"
        raise UserError(f"optimized_metric={metric}: the run has no such metric; it has {known}")
    return value


def _launch(job: Job) -> None:
    folder = job.folder
    launch_log.note({"run": folder.path.name, "status": "begun"})
    try:
        if folder.result.is_file():
            check_unchanged(folder, job.settings)
        to_do = (
            not folder.finished
            or lacks_export(folder, job.settings)
            or lacks_report(folder, job.settings)
        )
        outcome = _attempts(job) if to_do else Outcome.existing(folder)
    except UserError as error:  # a damaged file of an earlier attempt, or changed data
        outcome = Outcome("failed", folder.path.name, str(error), DATA)
    report(outcome, folder)


def _attempts(job: Job) -> Outcome:
    """Try the run as often as `retries` allows; returns the last outcome."""
    meta = job.folder.meta
    retries = RetryCounter(job.settings, read_json(meta).get(HALVED, 0) if meta.is_file() else 0)
    while True:
        [outcome] = run_jobs(job.halved(retries.halved))
        retry = None if started() else retries.next(outcome.kind)  # other ranks have ended
        if retry is None:
            return outcome
        print(f"{outcome}\n  {retry}", file=sys.stderr, flush=True)


def report(outcome: Outcome, folder: RunFolder | None = None) -> None:
    """Print a run's outcome, and log it for the command's summary. No folder: invalid settings."""
    log = str(folder.log) if folder else None
    launch_log.note({"run": outcome.run if folder else None, **outcome.row(), "log": log})
    if folder is None:
        print(f"error: {outcome.reason}", file=sys.stderr, flush=True)
    elif outcome.good:
        test = folder.ended()["test"]
        accuracy = f"accuracy {100 * test['accuracy']:.1f} %" if "accuracy" in test else None
        score = accuracy or f"loss {test['loss']:.4g}"
        print(f"{outcome.run}: {outcome.status}, test {score}", flush=True)
    else:
        print(f"{outcome}\n  log: {log}", file=sys.stderr, flush=True)
    if rows := launch_log.own():
        counts = launch_log.counts(rows)
        if counts.planned > 1 and LIVE not in os.environ:
            print(counts, flush=True)


def carry_out(work: Callable[[signals.Command], None], *, searching: bool = False) -> int:
    """Launch what `work` launches, with signals handled; returns the exit status of the command.

    Prints a summary of the runs that the launch log has. searching: a diverged run is a trial like
    any other, as it is in a W&B sweep.
    """
    try:
        with signals.Command() as command:
            work(command)
    except Stopped as stop_signal:
        print(f"stopped by {stop_signal}; the next launch resumes the runs", file=sys.stderr)
        return REQUEUE
    finally:
        notes = Path(os.environ.pop(launch_log.VARIABLE, "none"))
        rows = launch_log.rows_of(notes)
        launch_log.end(notes)
    searching = searching or asked_for() is not None
    status = summary([row for row in rows if not (searching and row.get("status") == "diverged")])
    counts = launch_log.counts(rows) if launch_log.stops(rows) else None
    # of a pack that has failed, runs are left that have not begun alone
    if counts and (count := counts.waiting + counts.running):
        runs = "1 run was" if count == 1 else f"{count} runs were"
        print(f"stop_at_failure: {runs} not begun; the next launch goes on", file=sys.stderr)
    return status


def summary(rows: Sequence[Mapping[str, Any]]) -> int:
    """Print the bad runs of a sweep again; returns the exit status of the command.

    1 for a failed run, 75 if runs were only stopped or are executed by another process.
    """
    ends = [row for row in rows[1:] if row["status"] != "begun"]
    bad = [row for row in ends if row["status"] not in ("done", "skipped") and not _has_result(row)]
    if len(ends) > 1:
        for row in bad:
            outcome = Outcome(row["status"], row["folder"], row["reason"], row.get("kind", ""))
            log = f"\n  log: {row['log']}" if row["log"] else ""
            print(f"{outcome}{log}", file=sys.stderr)
    later = [row for row in bad if row["status"] in ("stopped", "elsewhere")]
    return 1 if len(bad) > len(later) else REQUEUE if bad else 0


def _has_result(row: Mapping[str, Any]) -> bool:
    """Whether a run of another process has a good result by now."""
    if row["status"] != "elsewhere":
        return False
    folder = RunFolder(Path(row["log"]).parent)
    return folder.finished and Outcome.existing(folder).good


class RetryCounter:
    """Counts the failures of one run by kind; kinds without a setting in `retries` are not retried.

    After running out of memory, batches are evaluated in parts of half the size, if possible.
    """

    def __init__(self, settings: RunSettings, halved: int) -> None:
        self.halved = halved  # how often the parts of batches were halved
        self._settings, self._tried = settings, Counter[str]()

    def next(self, kind: str) -> str | None:
        """The name of the next attempt, `retry 1 of 2`; None if there is none."""
        limit = getattr(self._settings.retries, kind, 0)
        if self._tried[kind] >= limit:
            return None
        smaller = ""
        if kind == MEMORY:
            if not self._settings.can_be_halved(self.halved):
                return None
            self.halved += 1
            smaller = ", batches in parts of half the size"
        self._tried[kind] += 1
        return f"retry {self._tried[kind]} of {limit}{smaller}"
