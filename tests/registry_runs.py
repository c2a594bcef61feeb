"""Finished runs for the tests of the registry, with the labels that Hydra gives them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from zobench.grids import settings_of
from zobench.launch.job import Job
from zobench.run.folder import RunFolder
from zobench.run.runner import run
from zobench.settings import RunSettings

Compose = Callable[..., dict[str, Any]]
SMALL = (
    *("task.sizes.train=48", "task.sizes.dev=16", "task.sizes.test=16", "train.batch_size=8"),
    *("budget.steps=10", "train.eval_every=4", "train.log_every=2", "threads=1", "suite=tried"),
)


def maker(compose: Compose, root: Path) -> Callable[..., RunFolder]:
    """A function that makes the run of a row, with overrides, below `root`; each is run once."""
    known: dict[tuple[str, ...], RunFolder] = {}

    def folder_of(row: str, *overrides: str) -> RunFolder:
        words = (f"optimizer={row}", *overrides)
        if words not in known:
            plain = compose(*SMALL, f"runs_root={root}", "logger=wandb", *words)
            base = compose(*SMALL, f"runs_root={root}", "logger=wandb", *words, "seed=0")
            logger = plain.pop("logger")
            plain["logger"] = {"_target_": "zobench.run.loggers.none.NoLogger"}
            chosen = settings_of(words, {})[1]
            choices = {
                key: str(option) for key, option in chosen.items() if option and "/" not in key
            }
            job = Job.of(RunSettings.of(plain), base, choices)
            job.begin()
            attempt = {"time": "2026-12-01T00:00:00+00:00", "event": "begun", "host": "my-host-7"}
            job.folder.attempts.write_text(json.dumps(attempt) + "\n")
            run(job.folder)
            job.folder.config.write_text(yaml.safe_dump({**plain, "logger": logger}))
            known[words] = job.folder
        return known[words]

    return folder_of
