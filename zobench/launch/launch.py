"""One run from the outside: skip it, or start it in a process of its own, and say how it ended."""

import os
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from zobench.errors import UserError
from zobench.launch import launch_log, signals
from zobench.launch.job import DATA, MEMORY, Job, Outcome, existing, stopped
from zobench.launch.process import run_jobs
from zobench.run.folder import HALVED, RunFolder, read_json
from zobench.run.inputs import check_unchanged
from zobench.run.ranks.group import started
from zobench.run.stop import REQUEUE, Stop, Stopped
from zobench.settings import RunSettings


def launch(job: Job) -> None:
    """Run the settings unless their result exists. Failed and unfinished runs go on.

    A result of other data or another model than there is now is neither taken nor replaced. In a
    process that launches runs for a command, a run that is asked to stop saves, and is reported.
    """
    helper = signals.helper()
    if helper is None:
        _launch(job)
    elif not helper.stopping():
        if helper.queued_as is not None:  # for `zobench.launchers`, which looks after lost jobs
            begun = {"run": job.folder.path.name, "status": "begun", "job": helper.queued_as}
            launch_log.note({**begun, "folder": str(job.folder.path.resolve())})
        try:
            with Stop(helper.signals):
                _launch(job)
        except Stopped:
            helper.requeue()
            report(stopped(job.folder), job.folder)


def _launch(job: Job) -> None:
    folder = job.folder
    launch_log.note({"run": folder.path.name, "status": "begun"})
    try:
        if folder.result.is_file():
            check_unchanged(folder, job.settings)
        outcome = existing(folder) if folder.finished else _attempts(job)
    except UserError as error:  # a damaged file of an earlier attempt, or other data than it had
        outcome = Outcome("failed", folder.path.name, str(error), DATA)
    report(outcome, folder)


def _attempts(job: Job) -> Outcome:
    """How the last attempt at the run ended; there are as many as `retries` allows."""
    meta = job.folder.meta
    retries = Retries(job.settings, read_json(meta).get(HALVED, 0) if meta.is_file() else 0)
    while True:
        [outcome] = run_jobs(job.halved(retries.halved))
        again = None if started() else retries.again(outcome.kind)  # other ranks have ended
        if again is None:
            return outcome
        print(f"{outcome}\n  {again}", file=sys.stderr, flush=True)


def report(outcome: Outcome, folder: RunFolder | None = None) -> None:
    """Say how a run ended, and note it for the summary of the command that it belongs to.

    Without a folder the settings themselves were at fault, and nothing was written.
    """
    log = str(folder.log) if folder else None
    launch_log.note({"run": outcome.run if folder else None, **outcome.row(), "log": log})
    if folder is None:
        print(f"error: {outcome.reason}", file=sys.stderr, flush=True)
    elif outcome.good:
        test = folder.ended()["test"]
        good = f"accuracy {100 * test['accuracy']:.1f} %" if "accuracy" in test else None
        shown = good or f"loss {test['loss']:.4g}"
        print(f"{outcome.run}: {outcome.status}, test {shown}", flush=True)
    else:
        print(f"{outcome}\n  log: {log}", file=sys.stderr, flush=True)
    if path := os.environ.get(launch_log.VARIABLE):
        counts = launch_log.counts(launch_log.rows_of(Path(path)))
        if counts.planned > 1:
            print(counts, flush=True)


def summary(rows: Sequence[Mapping[str, Any]]) -> int:
    """The exit status of one command, of its launch's rows; of a sweep also its bad runs, again.

    1 for a failed run, 75 where some were only stopped, or are carried out elsewhere.
    """
    ends = [row for row in rows[1:] if row["status"] != "begun"]
    bad = [row for row in ends if row["status"] not in ("done", "skipped") and not _there_now(row)]
    if len(ends) > 1:
        for row in bad:
            outcome = Outcome(row["status"], row["folder"], row["reason"], row.get("kind", ""))
            log = f"\n  log: {row['log']}" if row["log"] else ""
            print(f"{outcome}{log}", file=sys.stderr)
    later = [row for row in bad if row["status"] in ("stopped", "elsewhere")]
    return 1 if len(bad) > len(later) else REQUEUE if bad else 0


def _there_now(row: Mapping[str, Any]) -> bool:
    """Whether a run that another process was at has a good result by now."""
    if row["status"] != "elsewhere":
        return False
    folder = RunFolder(Path(row["log"]).parent)
    return folder.finished and existing(folder).good


class Retries:
    """Counts the failures of one run against `retries`, by kind; a kind not there is never retried.

    What was out of memory is tried with batches in parts of half the size, if there are halves.
    """

    def __init__(self, settings: RunSettings, halved: int) -> None:
        self.halved = halved  # how often the parts of batches have been
        self._settings, self._tried = settings, Counter[str]()

    def again(self, kind: str) -> str | None:
        """How the next attempt is called, `attempt 1 of 2`; None where there is none."""
        most = getattr(self._settings.retries, kind, 0)
        if self._tried[kind] >= most:
            return None
        smaller = ""
        if kind == MEMORY:
            if not self._settings.can_be_halved(self.halved):
                return None
            self.halved += 1
            smaller = ", batches in parts of half the size"
        self._tried[kind] += 1
        return f"retry {self._tried[kind]} of {most}{smaller}"
