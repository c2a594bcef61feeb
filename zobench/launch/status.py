"""`zobench status SUITE`: which runs of a suite are done, running, failed, stopped or waiting."""

import argparse
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from zobench.errors import UserError
from zobench.launch import launch_log
from zobench.launch.run_lock import owner_of
from zobench.run.folder import RunFolder, read_json
from zobench.run.metrics_log import read_rows

ORDER = ("done", "diverged", "running", "failed", "damaged", "stopped")


class State(NamedTuple):
    """The state of a run's folder, with details in one or two lines."""

    status: str
    name: str
    text: str = ""


def main(arguments: Sequence[str]) -> int:
    """Print the counts, then a line for each run that is neither done nor waiting."""
    parser = argparse.ArgumentParser(prog="zobench status", description=__doc__)
    parser.add_argument("suite", metavar="SUITE", help="name of a folder in the folder of runs")
    runs = Path(os.environ.get("ZOBENCH_RUNS") or "runs")
    parser.add_argument("--runs", type=Path, default=runs, help="folder of all runs")
    args = parser.parse_args(arguments)
    suite = args.runs / args.suite
    plans = _plans(args.runs / launch_log.FOLDER, args.suite)
    if not suite.is_dir() and not plans:
        raise UserError(f"no suite '{args.suite}' in {args.runs}; set ZOBENCH_RUNS or --runs")
    states = [state_of(folder) for folder in folders_of(suite)]
    print(shown(args.suite, states, plans))
    return 0


def shown(suite: str, states: Sequence[State], plans: Sequence[list[dict[str, Any]]]) -> str:
    """The printed text, from the states of the runs and the logs of running or latest launches."""
    counts = Counter(state.status for state in states)
    launched = [launch_log.counts(plan) for plan in plans]
    waiting = sum(launch.waiting for launch in launched)
    parts = [f"{counts[status]} {status}" for status in ORDER if counts[status]]
    parts += [f"{waiting} waiting"] if waiting else []
    left = [launch.left_s for launch in launched] if counts["running"] else []
    eta = max((seconds for seconds in left if seconds), default=None)
    lines = [f"{suite}: {len(states) + waiting} runs: {', '.join(parts) or 'none has begun'}"]
    lines[0] += f"; about {launch_log.duration(eta)} left" if eta else ""
    for state in sorted(states, key=lambda state: ORDER.index(state.status)):
        if state.status != "done":
            lines.append(f"  {state.status}: {state.name}{f': {state.text}' if state.text else ''}")
    return "\n".join(lines)


def folders_of(suite: Path) -> Iterator[RunFolder]:
    """The run folders of a suite."""
    for path in sorted(suite.iterdir()) if suite.is_dir() else []:
        folder = RunFolder(path)
        if folder.config.is_file() or folder.failure.is_file():
            yield folder


def state_of(folder: RunFolder) -> State:
    """The state of a run; names a damaged file."""
    name = folder.path.name
    try:
        owner = owner_of(folder.path)
        if folder.finished or (folder.result.is_file() and not (owner and owner.alive)):
            result = folder.ended()
            return State(result["status"], name, result["reason"] or "")
        if owner is not None and owner.alive:
            return State("running", name, f"{_reached(folder)}; {owner}")
        if folder.failure.is_file():
            failure = read_json(folder.failure)
            text = f"{failure['kind']}: {failure['reason']}\n    log: {folder.log}"
            return State("failed", name, text)
        return State("stopped", name, f"{_reached(folder)}; the next launch resumes it")
    except (OSError, ValueError, KeyError, TypeError) as error:
        return State("damaged", name, " ".join(f"{folder.path}: {error}".split()))


def _reached(folder: RunFolder) -> str:
    rows, _ = read_rows(folder.metrics)
    step = rows[-1]["step"] if rows else 0
    total = folder.settings()["budget"]["steps"]
    return f"step {step}/{total}" if total else f"step {step}"


def _plans(folder: Path, suite: str) -> list[list[dict[str, Any]]]:
    """The logs of a suite's running launches; if there are none, the latest log."""
    found = [launch_log.rows_of(path) for path in sorted(folder.glob("*.jsonl"))]
    found = [rows for rows in found if rows and rows[0].get("suite") == suite]
    living = [rows for rows in found if launch_log.living(rows)]
    latest = {str(rows[0]["command"]): rows for rows in living or found[-1:]}
    return list(latest.values())
