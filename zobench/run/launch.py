"""One run from the outside: skip it, or start it in a process of its own, and say how it ended."""

import json
import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

from zobench.paths import PACKAGE_DIR
from zobench.run.folder import RunFolder, read_json, write_json
from zobench.run.identity import identity

LAUNCH_FILE = "ZOBENCH_LAUNCH"  # environment variable: where the jobs of one command report


class Outcome(NamedTuple):
    """How one run of a launch ended: done, skipped, diverged or failed."""

    status: str
    folder: str
    reason: str

    @property
    def good(self) -> bool:
        return self.status in ("done", "skipped")


def launch(
    settings: Mapping[str, Any], base: Mapping[str, Any], choices: Mapping[str, str]
) -> Outcome:
    """Run the settings unless their result exists. Failed and unfinished runs start anew.

    base: the same settings under seed 0, whose hash names what the seeds of a cell share.
    choices: the option taken in each config group, for names and labels.
    """
    run_id = identity(settings)
    parts = [choices[group] for group in ("task", "model", "tuning", "optimizer")]
    name = "-".join([*parts, f"s{settings['seed']}", run_id])
    folder = RunFolder(Path(settings["runs_root"]) / settings["suite"] / name)
    if folder.result.is_file():
        result = read_json(folder.result)
        done = result["status"] == "done"
        outcome = Outcome("skipped" if done else result["status"], name, result["reason"] or "")
    else:
        meta = {"id": run_id, "setting": identity(base), "name": name, "suite": settings["suite"]}
        meta |= {"seed": settings["seed"], "choices": dict(choices), **_environment()}
        folder.begin(settings, meta)
        outcome = _spawn(folder)
    _report(outcome, folder)
    return outcome


def _spawn(folder: RunFolder) -> Outcome:
    """A child per run: memory figures mean something, and a crash stays where it happened."""
    with folder.log.open("w") as log:
        command = [sys.executable, "-m", "zobench.run", str(folder.path)]
        code = subprocess.run(command, stderr=log, check=False).returncode
    if folder.result.is_file():
        result = read_json(folder.result)
        return Outcome(result["status"], folder.path.name, result["reason"] or "")
    if not folder.failure.is_file():
        reason = f"killed by signal {-code}" if code < 0 else f"exited with status {code}"
        write_json(folder.failure, {"kind": "killed", "reason": reason, "log": str(folder.log)})
    return Outcome("failed", folder.path.name, read_json(folder.failure)["reason"])


def _report(outcome: Outcome, folder: RunFolder) -> None:
    line = f"{outcome.folder}: {outcome.status}"
    if outcome.status in ("done", "skipped"):
        test = read_json(folder.result)["test"]
        line += f", test accuracy {100 * test['accuracy']:.1f} %"
    elif outcome.reason:
        line += f": {outcome.reason}"
    print(line, flush=True)
    if report := os.environ.get(LAUNCH_FILE):
        with Path(report).open("a") as file:
            file.write(json.dumps([*outcome, str(folder.log)]) + "\n")


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


def summary(report: Path) -> int:
    """Print how the runs of one command ended, the bad ones with reason and log; 1 if there are."""
    if not report.is_file():
        return 0
    rows = [json.loads(line) for line in report.read_text().splitlines()]
    outcomes = [(Outcome(*row[:3]), row[3]) for row in rows]
    if len(outcomes) > 1:
        counts: dict[str, int] = {}
        for outcome, _ in outcomes:
            counts[outcome.status] = counts.get(outcome.status, 0) + 1
        print(f"{len(outcomes)} runs: " + ", ".join(f"{n} {s}" for s, n in counts.items()))
    bad = [(outcome, log) for outcome, log in outcomes if not outcome.good]
    for outcome, log in bad:
        print(f"{outcome.status}: {outcome.folder}: {outcome.reason}", file=sys.stderr)
        print(f"  log: {log}", file=sys.stderr)
    return 1 if bad else 0
