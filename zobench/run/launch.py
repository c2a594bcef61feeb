"""One run from the outside: skip it, or start it in a process of its own, and say how it ended."""

import json
import os
import platform
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

from zobench.paths import PACKAGE_DIR
from zobench.run.folder import RunFolder, read_json, write_json
from zobench.run.identity import identity
from zobench.run.nursery import carry_out
from zobench.run.stop import REQUEUE

GROUPS = ("task", "model", "tuning", "optimizer")  # whose choices name a run
LAUNCH_FILE = "ZOBENCH_LAUNCH"  # environment variable: where the jobs of one command report


class Outcome(NamedTuple):
    """How one run of a launch ended: done, skipped, diverged, failed, or stopped to go on later."""

    status: str
    folder: str
    reason: str

    @property
    def good(self) -> bool:
        return self.status in ("done", "skipped")


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

    def begin(self, folder: RunFolder) -> None:
        """Make the folder as it is before the run, or before it goes on."""
        seed, suite = self.settings["seed"], self.settings["suite"]
        meta = {"id": identity(self.settings), "setting": identity(self.base)}
        meta |= {"name": folder.path.name, "suite": suite, "seed": seed}
        folder.begin(self.settings, meta | {"choices": dict(self.choices), **_environment()})


def launch(job: Job) -> Outcome:
    """Run the settings unless their result exists. Failed and unfinished runs go on."""
    folder = job.folder
    if folder.result.is_file() and not folder.mirroring.exists():
        result = read_json(folder.result)
        done = result["status"] == "done"
        status = "skipped" if done else result["status"]
        outcome = Outcome(status, folder.path.name, result["reason"] or "")
    else:
        job.begin(folder)
        outcome = _spawn(folder)
    report(outcome, folder)
    return outcome


def _spawn(folder: RunFolder) -> Outcome:
    """A child per run: memory figures mean something, and a crash stays where it happened."""
    code = carry_out(folder)
    if folder.result.is_file():
        return ended(folder)
    if code == REQUEUE:
        return stopped(folder)
    if not folder.failure.is_file():
        reason = f"killed by signal {-code}" if code < 0 else f"exited with status {code}"
        write_json(folder.failure, {"kind": "killed", "reason": reason, "log": str(folder.log)})
    return Outcome("failed", folder.path.name, read_json(folder.failure)["reason"])


def stopped(folder: RunFolder) -> Outcome:
    """A run that has saved what it had."""
    return Outcome("stopped", folder.path.name, "asked to stop; launched again, it goes on")


def ended(folder: RunFolder) -> Outcome:
    """What a run's result says of its end."""
    result = read_json(folder.result)
    return Outcome(result["status"], folder.path.name, result["reason"] or "")


def report(outcome: Outcome, folder: RunFolder | None = None) -> None:
    """Say how a run ended, and note it for the summary of the command that it belongs to.

    Without a folder the settings themselves were at fault, and nothing was written.
    """
    if folder is None:
        print(f"error: {outcome.reason}", file=sys.stderr, flush=True)
    elif outcome.good:
        test = read_json(folder.result)["test"]
        good = f"accuracy {100 * test['accuracy']:.1f} %" if "accuracy" in test else None
        shown = good or f"loss {test['loss']:.4g}"
        print(f"{outcome.folder}: {outcome.status}, test {shown}", flush=True)
    else:
        print(f"{_sentence(outcome)}\n  log: {folder.log}", file=sys.stderr, flush=True)
    if notes := os.environ.get(LAUNCH_FILE):
        with Path(notes).open("a") as file:
            file.write(json.dumps([*outcome, str(folder.log) if folder else None]) + "\n")


def _sentence(outcome: Outcome) -> str:
    return f"{outcome.status}: {outcome.folder}: {outcome.reason}"


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


def summary(notes: Path) -> int:
    """The exit status of one command; of a sweep also its counts and, again, its bad runs.

    1 for a failed run, 75 where some were only stopped.
    """
    rows = [json.loads(line) for line in notes.read_text().splitlines()] if notes.exists() else []
    outcomes = [(Outcome(*row[:3]), row[3]) for row in rows]
    bad = [(outcome, log) for outcome, log in outcomes if not outcome.good]
    if len(outcomes) > 1:
        counts = Counter(outcome.status for outcome, _ in outcomes)
        print(f"{len(outcomes)} runs: " + ", ".join(f"{n} {s}" for s, n in counts.items()))
        for outcome, log in bad:
            print(_sentence(outcome) + (f"\n  log: {log}" if log else ""), file=sys.stderr)
    failed = [outcome for outcome, _ in bad if outcome.status != "stopped"]
    return 1 if failed else REQUEUE if bad else 0
