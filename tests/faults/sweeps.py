"""Sweeps in processes of their own, and what their folders and the process table show of them."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import yaml

from zobench.run.folder import RunFolder

ROWS = '{{"text": "a {} film", "label": {}}}\n'
SMALL = (
    *("budget.steps=10", "train.batch_size=8", "train.eval_every=5", "train.log_every=2"),
    *("task.sizes.train=32", "task.sizes.dev=16", "task.sizes.test=16", "threads=1"),
    *("train.keep_weights=false", "suite=s", "checkpoint.steps=2"),
)


class Sweep:
    """A sweep over tasks of two kinds, whose runs a Saboteur spoils.

    kinds: what happens to the runs of a TASK-SEED. `data` is the file that the task `mine` reads.
    """

    def __init__(self, place: Path, runs: Path, kinds: Mapping[str, str]) -> None:
        self.place, self.runs = place, runs
        self.data = place / "rows.jsonl"
        self.mend()
        conf = place / "conf"
        for group in ("logger", "task"):
            (conf / group).mkdir(parents=True)
        shutil.copy(Path(__file__).with_name("saboteur.py"), conf)
        logger = {"_target_": "saboteur.Saboteur", "kinds": dict(kinds), "place": str(place)}
        (conf / "logger" / "saboteur.yaml").write_text(yaml.safe_dump(logger))
        task = {
            "defaults": ["custom", "_self_"],
            "prompt": "{{ text }} It was",
            "choices": [" bad", " good"],
            "labels": [0, 1],
            "data_dir": str(self.data),
        }
        (conf / "task" / "mine.yaml").write_text(yaml.safe_dump(task))

    def mend(self) -> None:
        lines = [ROWS.format(f"{n} times {'good' if n % 2 else 'bad'}", n % 2) for n in range(80)]
        self.data.write_text("".join(lines))

    def damage(self) -> None:
        with self.data.open("a") as file:
            file.write('{"text": "half a line\n')

    def start(self, *overrides: str) -> subprocess.Popen[str]:
        """The command, on its way."""
        command = [sys.executable, "-c", "from zobench.cli import main; main()"]
        arguments = ["--config-dir", str(self.place / "conf"), "-m", "logger=saboteur", *SMALL]
        environment = os.environ | {"ZOBENCH_RUNS": str(self.runs), "PYTHONWARNINGS": "default"}
        return subprocess.Popen(
            [*command, *arguments, *overrides],
            cwd=self.place,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def launch(self, *overrides: str) -> tuple[int, str, str]:
        """Exit status, stdout and stderr of the whole command."""
        process = self.start(*overrides)
        out, err = process.communicate(timeout=600)
        return process.returncode, out, err

    def folders(self) -> list[RunFolder]:
        return [RunFolder(path.parent) for path in sorted(self.runs.glob("s/*/config.yaml"))]

    def events(self, folder: RunFolder) -> list[str]:
        """How the attempts at a run began and ended."""
        return [json.loads(line)["event"] for line in folder.attempts.read_text().splitlines()]

    def processes(self) -> list[str]:
        """Command lines of living processes that work on these runs."""
        found = []
        for path in Path("/proc").glob("[0-9]*"):
            try:
                if f"ZOBENCH_RUNS={self.runs}\0" in path.joinpath("environ").read_text():
                    found.append(path.joinpath("cmdline").read_text().replace("\0", " "))
            except (OSError, UnicodeDecodeError):
                continue
        return found
