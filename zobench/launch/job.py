"""A run to be launched, and how it ended."""

import contextlib
import errno
import platform
import subprocess
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

import torch

from zobench.errors import UserError
from zobench.paths import PACKAGE_DIR
from zobench.run.device import NoDevice
from zobench.run.folder import HALVED, RunFolder, read_json, write_json
from zobench.run.ranks.group import Lost
from zobench.run.stop import REQUEUE
from zobench.secret import redacted
from zobench.settings import RunSettings, identity

DATA, MEMORY, DISK = "data", "memory", "disk"
DEVICE, CRASH, KILLED = "device", "crash", "killed"
_DISK = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EROFS: "the file system is read-only",
    errno.EACCES: "permission denied",
    errno.EPERM: "not permitted",
    errno.EIO: "the disk failed",
    errno.ESTALE: "the network file system lost the file",
}
_SAID = {  # by libraries that have no exception of their own for it
    "No space left on device": _DISK[errno.ENOSPC],
    "Disk quota exceeded": _DISK[errno.EDQUOT],
    "Read-only file system": _DISK[errno.EROFS],
}
_TAIL = 20  # lines
GROUPS = ("task", "model", "tuning", "optimizer")  # whose choices name a run


class Job(NamedTuple):
    """A run to be launched: its folder, its settings, and what else meta.json notes."""

    folder: RunFolder
    settings: RunSettings
    meta: Mapping[str, Any]

    @classmethod
    def of(
        cls, settings: RunSettings, base: Mapping[str, Any], choices: Mapping[str, str]
    ) -> "Job":
        """A run that Hydra has composed.

        Args:
            settings: of the run.
            base: the same settings under seed 0, whose hash names what the seeds of a cell share.
            choices: the option taken in each config group, for names and labels.
        """
        own = identity(settings.plain)
        name = "-".join([*(choices[group] for group in GROUPS), f"s{settings.seed}", own])
        meta: dict[str, Any] = {"id": own, "setting": identity(base), "name": name}
        meta |= {"suite": settings.suite, "seed": settings.seed}
        meta |= {"choices": dict(choices), **_environment()}
        return cls(RunFolder(Path(settings.runs_root) / settings.suite / name), settings, meta)

    @classmethod
    def begun(cls, path: Path) -> "Job":
        """The run whose config.yaml the folder holds; UserError where that is damaged."""
        folder = RunFolder(path)
        meta = read_json(folder.meta) if folder.meta.is_file() else {}
        return cls(folder, folder.run_settings(), meta)

    def halved(self, times: int) -> "Job":
        """The same run, its batches in parts that are halved so many times."""
        return self._replace(meta={**self.meta, HALVED: times}) if times else self

    def begin(self) -> None:
        """Make the folder as it is before the run, or before it goes on; a result stays."""
        if not self.folder.result.is_file():
            self.folder.begin(self.settings.plain, self.meta)

    def as_json(self) -> list[Any]:
        """What `from_json` of another process takes."""
        return [str(self.folder.path.resolve()), self.settings.plain, self.meta]

    @classmethod
    def from_json(cls, path: str, plain: Mapping[str, Any], meta: Mapping[str, Any]) -> "Job":
        return cls(RunFolder(Path(path)), RunSettings.of(plain), meta)


class Outcome(NamedTuple):
    """How a run, or one attempt at it, ended.

    status: done, skipped (it was done before), diverged, failed, stopped (to go on later) or
    elsewhere (another process is at it). run: its name. kind: of a failure; data (settings or data,
    which no retry mends), memory (of the GPU or the machine), disk (full, read-only or failing),
    device (a GPU that is gone or broken), crash, or killed (from outside). reason: one line.
    """

    status: str
    run: str
    reason: str = ""
    kind: str = ""

    @property
    def good(self) -> bool:
        return self.status in ("done", "skipped")

    @property
    def exit_status(self) -> int:
        """Of a process that carried out this run alone."""
        return {"failed": 1, "stopped": REQUEUE, "elsewhere": REQUEUE}.get(self.status, 0)

    def __str__(self) -> str:
        said = f"{self.kind}: {self.reason}" if self.kind else self.reason
        return f"{self.status}: {self.run}: {said}"

    def row(self) -> dict[str, Any]:
        """As `.launches` and the summary of a command note it."""
        row = {"status": self.status, "folder": self.run, "reason": self.reason}
        return row | ({"kind": self.kind} if self.kind else {})


def ended(folder: RunFolder) -> Outcome:
    """What the result says that the folder has."""
    result = folder.ended()
    return Outcome(result["status"], folder.path.name, result["reason"] or "")


def existing(folder: RunFolder) -> Outcome:
    """What a result that was there before says."""
    outcome = ended(folder)
    return outcome._replace(status="skipped") if outcome.status == "done" else outcome


def stopped(folder: RunFolder) -> Outcome:
    """A run that has saved what it had."""
    return Outcome("stopped", folder.path.name, "asked to stop; launched again, it goes on")


def elsewhere(folder: RunFolder, reason: str = "another process took it over") -> Outcome:
    """A run that another process is at."""
    return Outcome("elsewhere", folder.path.name, reason)


def failed(folder: RunFolder, error: BaseException) -> Outcome:
    """A run, or the making of its folder, that has raised."""
    kind, reason = described(error)
    return Outcome("failed", folder.path.name, reason, kind)


def note_failure(folder: RunFolder, outcome: Outcome) -> None:
    """Write failure.json, with the end of the log; nothing where the disk does not take it."""
    about = {"kind": outcome.kind, "reason": outcome.reason}
    tail = tail_of(folder.log)
    with contextlib.suppress(OSError):  # the process that launched the run is told otherwise
        write_json(folder.failure, {**about, "log": str(folder.log), "tail": tail})


def described(error: BaseException) -> tuple[str, str]:
    """Kind and one-line reason of what a run has raised."""
    text = redacted(" ".join(str(error).split()))
    if (disk := _disk(error)) is not None:
        return DISK, disk
    if isinstance(error, Lost):
        return KILLED, text
    if isinstance(error, UserError):
        return (DEVICE if isinstance(error, NoDevice) else DATA), text
    refused = "can't allocate memory" in text  # torch's words for a CPU's; it has no type for it
    if refused or isinstance(error, MemoryError | torch.OutOfMemoryError):
        return MEMORY, text.split(" Including ")[0][:300] or "out of memory"
    if isinstance(error, RuntimeError) and ("CUDA error" in text or "NVIDIA" in text):
        # later lines are advice on debugging
        return DEVICE, redacted(str(error).strip().splitlines()[0][:300])
    return CRASH, f"{type(error).__name__}: {text}"[:300]


def _disk(error: BaseException) -> str | None:
    """What is wrong with the disk, and at which file, if that is behind the error."""
    for cause in _causes(error):
        if isinstance(cause, OSError) and cause.errno in _DISK:
            at = f": {cause.filename}" if cause.filename else ""
            return _DISK[cause.errno] + at
        for words, meaning in _SAID.items():
            if words in str(cause):
                return meaning
    return None


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def tail_of(log: Path) -> list[str]:
    """The last lines of a log; none where there is no log."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 10_000))
            return file.read().decode(errors="replace").splitlines()[-_TAIL:]
    except OSError:
        return []


def kernel_kills() -> int:
    """How many processes of this control group the kernel has killed for memory so far."""
    try:
        lines = Path("/sys/fs/cgroup/memory.events").read_text().splitlines()
    except OSError:
        return 0
    counts: dict[str, Any] = dict(line.split() for line in lines)
    return int(counts.get("oom_kill", 0))


def ended_by(number: int, memory: bool) -> tuple[str, str]:
    """A process that ended by a signal, which the kernel sends where memory is short."""
    if memory:
        return MEMORY, "the system killed it for want of memory"
    return KILLED, f"killed by signal {number}"


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
