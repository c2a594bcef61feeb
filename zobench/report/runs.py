"""Read the run folders of a suite into a data frame: one row per run, of any status."""

import argparse
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from zobench.errors import UserError
from zobench.report.numbers import numbers_in

STATUSES = ("done", "diverged", "failed", "unfinished")
RUN_FILES = ("meta.json", "result.json", "failure.json")  # config.yaml alone: about to start
TIMES = ("time/step_s", "time/total_s")
ALWAYS = ("dev/accuracy", "dev/loss", "cost/forwards", "memory/peak_gib", *TIMES)
Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True)
class Suite:
    """The runs of one suite: `frame` has a row per run, `configs` the settings of each run by id.

    The columns of `frame` are folder, id, setting, seed, status, reason, commit, device, notes
    (of its rows), read (a hash of data and model), wandb (its id there), test_size (examples, NaN
    before the data were read), one per choice (`optimizer`, `task`, ...) and one
    per number of a result (`test/accuracy`, ...).
    """

    name: str
    path: Path
    frame: pd.DataFrame
    configs: dict[str, dict[str, Any]]
    choices: tuple[str, ...]
    metrics: tuple[str, ...]

    @cached_property
    def flat(self) -> dict[str, dict[str, Any]]:
        """The settings of each run by id, under joined keys."""
        return {run: flatten(config) for run, config in self.configs.items()}

    def labels(self, key: str) -> pd.Series:
        """The value of `key` in each run, as text: a choice, `seed`, `setting` or a config key.

        Several keys may be joined by commas; their values are, too.
        """
        if "," in key:
            parts = [self.labels(part.strip()) for part in key.split(",")]
            return pd.concat(parts, axis=1).agg(", ".join, axis=1)
        if key in (*self.choices, "seed", "setting"):
            return self.frame[key].astype(str)
        flat = [self.flat[run] for run in self.frame["id"]]
        if not any(key in config for config in flat):
            vary = sorted({k for config in flat for k in config if config[k] != flat[0].get(k)})
            raise UserError(
                f"no run of suite '{self.name}' has the key '{key}'; the choices are "
                f"{', '.join(self.choices)}; a config key will do too, and those that vary are "
                f"{', '.join(vary) or 'none'}"
            )
        return pd.Series([str(config.get(key, "-")) for config in flat], index=self.frame.index)

    def check_metric(self, metric: str) -> None:
        """Raise UserError when no run has the metric."""
        if metric not in self.metrics:
            known = ", ".join(self.metrics)
            raise UserError(
                f"no run of suite '{self.name}' has the metric '{metric}'; known: {known}"
            )

    def presets(self, part: str, key: str) -> list[str]:
        """The values of `key` in the runs' own settings under `part`, each once."""
        presets = [config.get(part) or {} for config in self.configs.values()]
        return sorted({str(preset[key]) for preset in presets if preset.get(key)})

    def preset(self, part: str, key: str) -> str | None:
        """The value of `key` in the runs' own settings under `part`, table or plot, if any."""
        values = self.presets(part, key)
        if len(values) > 1:
            raise UserError(
                f"the runs of suite '{self.name}' disagree about {part}.{key}:"
                f" {', '.join(values)}; choose with --{key}"
            )
        return values[0] if values else None

    def differences(self, runs: pd.DataFrame) -> dict[str, str]:
        """The settings among `runs`, each with the config keys in which it differs."""
        flat = {
            setting: [self.flat[run] for run in group["id"]]
            for setting, group in runs.groupby("setting")
        }
        # Keys that differ between runs of one setting follow the seed and are ignored; so are keys
        # named seed, such as optimizer.seed, of a setting that was run once.
        fixed = {
            str(setting): {
                key: str(value)
                for key, value in first.items()
                if all(str(config.get(key)) == str(value) for config in rest)
            }
            for setting, (first, *rest) in flat.items()
        }
        everything = {key for config in fixed.values() for key in config}
        keys = sorted(key for key in everything if key.split(".")[-1] != "seed")
        keys = [key for key in keys if len({config.get(key) for config in fixed.values()}) > 1]
        return {
            setting: ", ".join(f"{key}={config.get(key, 'unset')}" for key in keys)
            or f"setting {setting}"
            for setting, config in fixed.items()
        }

    def apart(self, groups: Any) -> pd.Series:
        """The differences of each run's setting within its group; empty where it is the only one.

        groups: a column of the frame's length, or several, as `DataFrame.groupby` takes them.
        """
        told = pd.Series("", index=self.frame.index)
        for _, runs in self.frame.groupby(groups):
            if len(differences := self.differences(runs)) > 1:
                told[runs.index] = runs["setting"].map(differences)
        return told


def read_suite(root: Path, suite: str) -> Suite:
    """Read every run folder under `root/suite`; raise UserError if there is none."""
    names = suites(root)
    if suite not in names:
        listed = f"suites there: {', '.join(names)}" if names else "there is no suite in it yet"
        raise UserError(f"no suite '{suite}' in {root}; {listed}")
    folders = [
        folder
        for folder in sorted((root / suite).iterdir())
        if any((folder / name).is_file() for name in RUN_FILES)
    ]
    if not folders:
        raise UserError(f"suite '{suite}' has no runs: no run folder in {root / suite}")
    configs: dict[str, dict[str, Any]] = {}
    records: list[dict[str, Any]] = []
    choices: set[str] = set()
    metrics: set[str] = set()
    for folder in folders:
        run, chosen = _identity(folder)
        outcome, numbers = _outcome(folder)
        records.append(chosen | numbers | run | outcome)
        configs[run["id"]] = _read(folder / "config.yaml")
        choices |= chosen.keys()
        metrics |= numbers.keys()
    _refuse_twins(records, "id")
    _refuse_twins(records, "setting", "seed")
    # Sorted by identity, so that neither sums nor ties depend on how the folders are named.
    frame = pd.DataFrame(records).sort_values(["setting", "seed"], ignore_index=True)
    for name in set(ALWAYS) - metrics:
        frame[name] = float("nan")
    for name in choices:
        frame[name] = frame[name].fillna("-")
    return Suite(
        suite, root / suite, frame, configs, tuple(sorted(choices)), tuple(sorted(metrics))
    )


def suites(root: Path) -> list[str]:
    """Names of the suites in the folder of all runs."""
    if not root.is_dir():
        raise UserError(f"there is no folder of runs at {root}; set ZOBENCH_RUNS or pass --runs")
    return sorted(path.name for path in root.iterdir() if path.is_dir() and path.name[0] != ".")


def suite_parser(command: str, description: str, example: str) -> argparse.ArgumentParser:
    """A command line that names a suite and, with --runs, the folder of all runs."""
    parser = argparse.ArgumentParser(
        prog=f"zobench {command}", description=description, epilog=f"example: {example}"
    )
    parser.add_argument("suite", metavar="SUITE", help="name of a folder in the folder of runs")
    add_runs(parser)
    return parser


def add_runs(parser: argparse.ArgumentParser) -> None:
    """Add --runs, the folder of all runs, to a command line."""
    parser.add_argument(
        "--runs",
        type=Path,
        default=Path(os.environ.get("ZOBENCH_RUNS") or "runs"),
        metavar="FOLDER",
        help="folder of all runs (default: $ZOBENCH_RUNS, or runs)",
    )


def flatten(tree: Mapping[str, Any], separator: str = ".") -> dict[str, Any]:
    """Leaves of a nested mapping under joined keys; a null is the same as an absent key."""
    leaves: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            below = flatten(value, separator)
            leaves.update({f"{key}{separator}{name}": leaf for name, leaf in below.items()})
        elif value is not None:
            leaves[str(key)] = value
    return leaves


def _digest(inputs: Any) -> str:
    """A hash of the files that a run has read, "" where meta.json does not list them."""
    try:
        found = [
            f"{key} {name} {entry['sha256']}"
            for key, files in inputs.items()
            if key != "_target_"  # the user's code may change without moving a number
            for name, entry in files.items()
        ]
    except (AttributeError, TypeError, KeyError):
        return ""
    return hashlib.sha256("\n".join(sorted(found)).encode()).hexdigest() if found else ""


def _identity(folder: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """The identity of the run, and its choices, from meta.json."""
    path = folder / "meta.json"
    meta = _read(path)
    for key, kind in {"id": str, "setting": str, "seed": int, "choices": dict}.items():
        if not isinstance(meta.get(key), kind):
            raise UserError(f"{path}: '{key}' is missing or not a {kind.__name__}")
    run = {key: meta[key] for key in ("id", "setting", "seed")}
    run |= {key: str(meta.get(key)) for key in ("commit", "device")} | {"notes": meta.get("notes")}
    run["read"] = _digest(meta.get("inputs"))
    run["wandb"] = str(meta.get("wandb", meta["id"]))
    run["test_size"] = float((meta.get("data") or {}).get("test") or "nan")
    choices = {str(k): "-" if v is None else str(v) for k, v in meta["choices"].items()}
    return {"folder": folder.name, **run}, choices


def _outcome(folder: Path) -> tuple[dict[str, str], dict[str, float]]:
    """The run's status with its reason, and the numbers of its result."""
    result, failure = folder / "result.json", folder / "failure.json"
    if result.is_file():
        content = _read(result)
        status = content.get("status")
        if status not in ("done", "diverged"):
            raise UserError(f"{result}: status is {status!r}, expected 'done' or 'diverged'")
        numbers = numbers_in(flatten(content, "/"))
        return {"status": status, "reason": _line(content.get("reason"))}, numbers
    if failure.is_file():
        content = _read(failure)
        parts = [_line(content.get("kind")), _line(content.get("reason"))]
        return {"status": "failed", "reason": ": ".join(filter(None, parts))}, {}
    return {"status": "unfinished", "reason": ""}, {}


def _line(text: object) -> str:
    """First line of a text that may be absent."""
    return next(iter(str(text or "").strip().splitlines()), "")


def _refuse_twins(records: list[dict[str, Any]], *keys: str) -> None:
    """Raise UserError when two folders hold the same run: one of them would be counted twice."""
    seen: dict[tuple[Any, ...], str] = {}
    for record in records:
        value = tuple(record[key] for key in keys)
        if value in seen:
            raise UserError(
                f"two folders have the same {' and '.join(keys)} ({', '.join(map(str, value))}): "
                f"{seen[value]} and {record['folder']}; remove one of them"
            )
        seen[value] = record["folder"]


def _read(path: Path) -> dict[str, Any]:
    """The mapping a JSON or YAML file holds."""
    try:
        text = path.read_text(encoding="utf-8")
        content = json.loads(text) if path.suffix == ".json" else yaml.load(text, Loader)
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UserError(f"cannot read {path}: {error}; repair or remove the folder") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} does not hold a mapping; repair or remove the folder")
    return content
