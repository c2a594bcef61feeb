"""One run from the outside: skip it, or start it in a process of its own, and say how it ended."""

import os
import platform
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

from zobench.errors import UserError
from zobench.launch import launch_log
from zobench.launch.attempt import ALREADY, BUSY, Ending, Order
from zobench.launch.failure import DATA, KILLED, MEMORY, Failure
from zobench.launch.forkserver import carry_out
from zobench.launch.run_lock import LOST, Busy, claimed
from zobench.paths import PACKAGE_DIR
from zobench.run.folder import HALVED, RunFolder, can_be_smaller, read_json
from zobench.run.identity import identity
from zobench.run.inputs import check_unchanged
from zobench.run.ranks.group import started
from zobench.run.stop import REQUEUE

GROUPS = ("task", "model", "tuning", "optimizer")  # whose choices name a run


class Outcome(NamedTuple):
    """How one run of a launch ended.

    status: done, skipped, diverged, failed, stopped (to go on later) or elsewhere (another process
    is at it). kind: of a failure.
    """

    status: str
    folder: str
    reason: str
    kind: str = ""

    @property
    def good(self) -> bool:
        return self.status in ("done", "skipped")

    def __str__(self) -> str:
        said = f"{self.kind}: {self.reason}" if self.kind else self.reason
        return f"{self.status}: {self.folder}: {said}"


class Job(NamedTuple):
    """A run to be launched.

    base: the same settings under seed 0, whose hash names what the seeds of a cell share.
    choices: the option taken in each config group, for names and labels.
    """

    settings: Mapping[str, Any]
    base: Mapping[str, Any]
    choices: Mapping[str, str]

    @property
    def folder(self) -> RunFolder:
        parts = [self.choices[group] for group in GROUPS]
        name = "-".join([*parts, f"s{self.settings['seed']}", identity(self.settings)])
        return RunFolder(Path(self.settings["runs_root"]) / self.settings["suite"] / name)

    def order(self, halved: int = 0) -> Order:
        """The run to be carried out, with batches halved so many times."""
        seed, suite = self.settings["seed"], self.settings["suite"]
        meta: dict[str, Any] = {"id": identity(self.settings), "setting": identity(self.base)}
        meta |= {"name": self.folder.path.name, "suite": suite, "seed": seed}
        meta |= {"choices": dict(self.choices), **_environment()}
        return Order(self.folder, self.settings, meta | ({HALVED: halved} if halved else {}))


def launch(job: Job) -> Outcome:
    """Run the settings unless their result exists. Failed and unfinished runs go on.

    A result of other data or another model than there is now is neither taken nor replaced.
    """
    folder = job.folder
    launch_log.note({"run": folder.path.name, "status": "begun"})
    try:
        if folder.result.is_file():
            check_unchanged(folder, job.settings)
        outcome = existing(folder) if folder.finished else _tried(job)
    except UserError as error:  # a damaged file of an earlier attempt, or other data than it had
        outcome = Outcome("failed", folder.path.name, str(error), DATA)
    report(outcome, folder)
    return outcome


def _tried(job: Job) -> Outcome:
    """Attempts at the run, as many as `retries` allows."""
    folder = job.folder
    before = read_json(folder.meta) if folder.meta.is_file() else {}
    retries = Retries(job.settings, before.get(HALVED, 0))
    while True:
        outcome = outcome_of(folder, carry_out(job.order(retries.halved)))
        again = None if started() else retries.again(outcome.kind)  # other ranks have ended
        if again is None:
            return outcome
        print(f"{outcome}\n  {again}", file=sys.stderr, flush=True)


def outcome_of(folder: RunFolder, ending: Ending) -> Outcome:
    """What became of a run whose process has ended."""
    name, status = folder.path.name, ending.status
    if status == ALREADY:
        return existing(folder)
    if status in (BUSY, LOST):
        return Outcome("elsewhere", name, ending.reason or "another process took it over")
    if folder.result.is_file():
        return _of_result(folder)
    if status == REQUEUE:
        return stopped(folder)
    if ending.kind and status >= 0:
        return Outcome("failed", name, ending.reason, ending.kind)
    failure = Failure(ending.kind or KILLED, ending.reason or f"exited with status {status}")
    _noted(folder, failure)
    return Outcome("failed", name, failure.reason, failure.kind)


def _noted(folder: RunFolder, failure: Failure) -> None:
    """Write the failure of a process that could not, unless another is at the run by now."""
    if not folder.config.is_file():
        return  # it had not begun
    try:
        with claimed(folder.path):
            if not folder.result.is_file():
                failure.write(folder)
    except (Busy, OSError):
        return


def existing(folder: RunFolder) -> Outcome:
    """What a result that was there before says."""
    outcome = _of_result(folder)
    return outcome._replace(status="skipped") if outcome.status == "done" else outcome


def stopped(folder: RunFolder) -> Outcome:
    """A run that has saved what it had."""
    return Outcome("stopped", folder.path.name, "asked to stop; launched again, it goes on")


def _of_result(folder: RunFolder) -> Outcome:
    result = folder.ended()
    return Outcome(result["status"], folder.path.name, result["reason"] or "")


def report(outcome: Outcome, folder: RunFolder | None = None) -> None:
    """Say how a run ended, and note it for the summary of the command that it belongs to.

    Without a folder the settings themselves were at fault, and nothing was written.
    """
    log = str(folder.log) if folder else None
    launch_log.note({"run": outcome.folder if folder else None, **_row(outcome), "log": log})
    if folder is None:
        print(f"error: {outcome.reason}", file=sys.stderr, flush=True)
    elif outcome.good:
        test = folder.ended()["test"]
        good = f"accuracy {100 * test['accuracy']:.1f} %" if "accuracy" in test else None
        shown = good or f"loss {test['loss']:.4g}"
        print(f"{outcome.folder}: {outcome.status}, test {shown}", flush=True)
    else:
        print(f"{outcome}\n  log: {log}", file=sys.stderr, flush=True)
    if path := os.environ.get(launch_log.VARIABLE):
        counts = launch_log.counts(launch_log.rows_of(Path(path)))
        if counts.planned > 1:
            print(counts, flush=True)


def _row(outcome: Outcome) -> dict[str, Any]:
    row = {"status": outcome.status, "folder": outcome.folder, "reason": outcome.reason}
    return row | ({"kind": outcome.kind} if outcome.kind else {})


def _environment() -> dict[str, Any]:
    """What the settings do not say: commit, versions, machine."""
    versions = {"python": platform.python_version()}
    for package in ("zobench", "torch", "transformers", "numba", "numpy"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "not installed"
    return {"commit": _commit(), "versions": versions, "host": platform.node()}


def _commit() -> str | None:
    """The checkout's commit, with `-dirty` when files differ from it; None outside a checkout."""
    if not (PACKAGE_DIR.parent / ".git").exists():
        return None
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        answer = subprocess.run(
            command, cwd=PACKAGE_DIR.parent, capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        return None
    return answer.stdout.strip() or None


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

    def __init__(self, settings: Mapping[str, Any], halved: int) -> None:
        self.halved = halved  # how often the parts of batches have been
        self._settings, self._tried = settings, Counter[str]()

    def again(self, kind: str) -> str | None:
        """How the next attempt is called, `attempt 1 of 2`; None where there is none."""
        most = self._settings["retries"].get(kind, 0)
        if self._tried[kind] >= most:
            return None
        smaller = ""
        if kind == MEMORY:
            if not can_be_smaller(self._settings, self.halved):
                return None
            self.halved += 1
            smaller = ", batches in parts of half the size"
        self._tried[kind] += 1
        return f"retry {self._tried[kind]} of {most}{smaller}"
