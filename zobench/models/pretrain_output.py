"""What a pretraining run leaves: a folder that is whole or absent, and its loss as it goes."""

import json
import math
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from zobench.errors import UserError

LOG_FILE = "pretrain.jsonl"


@contextmanager
def appears_when_done(out: Path, *, overwrite: bool) -> Iterator[Path]:
    """A temporary sibling of `out` that becomes `out` when the block ends, and vanishes on error.

    Raises UserError, before anything is made, if `out` is in use and not to be overwritten.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        if not overwrite:
            raise UserError(f"{out} exists and is not empty: choose another out, or overwrite=true")
        if not (out / LOG_FILE).is_file():  # out=. or out=~ would be gone with all that is in it
            raise UserError(f"out={out}: not what a pretraining has left; remove it yourself")
    out.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        yield folder
        folder.chmod(0o755)  # mkdtemp and safetensors make private files, a result is not.
        for path in folder.iterdir():
            path.chmod(0o644)
        if out.exists():
            old = Path(tempfile.mkdtemp(prefix=f".{out.name}.old.", dir=out.parent))
            out.rename(old / out.name)
            folder.rename(out)
            shutil.rmtree(old)
        else:
            folder.rename(out)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class Report:
    """Loss to a file, and to the screen: a bar with ETA on a terminal, plain lines elsewhere."""

    def __init__(self, path: Path, steps: int, every: int) -> None:
        self.path, self.steps, self.every = path, steps, every
        self.console = Console()
        columns = (
            "pretrain",
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("loss {task.fields[loss]:.3f}"),
        )
        self.progress = Progress(
            *columns,
            TimeRemainingColumn(),
            console=self.console,
            disable=not self.console.is_terminal,
        )
        self.task = self.progress.add_task("pretrain", total=steps, loss=math.nan)

    def __enter__(self) -> "Report":
        self.file = self.path.open("w", encoding="utf-8")
        self.progress.start()
        self.began = time.perf_counter()
        return self

    def __exit__(self, *error: object) -> None:
        self.progress.stop()
        self.file.close()

    def write(self, record: dict[str, float]) -> None:
        self.file.write(json.dumps(record) + "\n")

    def step(self, step: int, loss: float) -> None:
        self.progress.update(self.task, completed=step, loss=loss)
        if step % self.every and step != self.steps:
            return
        self.write({"step": step, "loss": round(loss, 6)})
        if not self.console.is_terminal:
            left = (time.perf_counter() - self.began) / step * (self.steps - step)
            self.console.print(f"pretrain {step}/{self.steps} loss {loss:.4f} eta {left:.0f}s")
