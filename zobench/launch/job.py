"""A run to launch, and its outcome."""

import contextlib
import errno
import platform
import subprocess
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

import torch

from zobench.errors import UserError
from zobench.launch.run_lock import owner_of
from zobench.paths import PACKAGE_DIR
from zobench.run.device import NoDevice
from zobench.run.folder import HALVED, RunFolder, read_json, write_atomically, write_json
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
_DISK_MESSAGES = {  # of libraries that raise no OSError
    "No space left on device": _DISK[errno.ENOSPC],
    "Disk quota exceeded": _DISK[errno.EDQUOT],
    "Read-only file system": _DISK[errno.EROFS],
}
_TAIL = 20  # lines
GROUPS = ("task", "model", "tuning", "optimizer")  # a run's name has the choices in these


class Job(NamedTuple):
    """A run to launch: its folder, its settings, and other entries of meta.json.

    command: the command line that starts this run; empty if it is not known.
    """

    folder: RunFolder
    settings: RunSettings
    meta: Mapping[str, Any]
    command: str = ""

    @classmethod
    def of(
        cls,
        settings: RunSettings,
        base: Mapping[str, Any],
        choices: Mapping[str, str],
        varied: Sequence[str] = (),
        command: str = "",
    ) -> "Job":
        """A run that Hydra has composed.

        Args:
            settings: of the run.
            base: the settings with seed 0; their hash is common to all seeds of a cell.
            choices: the option chosen in each config group, for names and labels.
            varied: what its sweep varies besides the choices and the seed, for its name.
            command: the command line that starts this run.
        """
        own = identity(settings.plain)
        parts = [*(choices[group] for group in GROUPS), *varied, f"s{settings.seed}", own]
        path = _folder_of(own, Path(settings.runs_root) / settings.suite / "-".join(parts))
        meta: dict[str, Any] = {"id": own, "setting": identity(base), "name": path.name}
        meta |= {"suite": settings.suite, "seed": settings.seed}
        meta |= {"choices": dict(choices), **_environment()}
        return cls(RunFolder(path), settings, meta, command)

    @classmethod
    def begun(cls, path: Path) -> "Job":
        """The run of a folder with a config.yaml; UserError if that is damaged."""
        folder = RunFolder(path)
        meta = read_json(folder.meta) if folder.meta.is_file() else {}
        return cls(folder, folder.typed_settings(), meta)

    def halved(self, times: int) -> "Job":
        """The same run with parts of batches halved so many times."""
        return self._replace(meta={**self.meta, HALVED: times}) if times else self

    def begin(self) -> None:
        """Prepare the folder for the run or its next attempt, unless it has a result."""
        if not self.folder.result.is_file():
            self.folder.begin(self.settings.plain, self.meta)
            if self.command:
                write_atomically(self.folder.overrides, redacted(self.command) + "\n")

    def twin(self) -> Path | None:
        """Another folder that has this run, finished or claimed by a living process.

        Two commands may begin a run at the same moment under different names.
        """
        here = self.folder.path
        for path in _folders_with(str(self.meta.get("id")), here.parent):
            if path.name != here.name:
                owner = owner_of(path)
                alive = owner is not None and owner.alive
                if alive or (path / self.folder.result.name).is_file():
                    return path
        return None

    def as_json(self) -> list[Any]:
        """Arguments for `from_json` in another process."""
        return [str(self.folder.path.resolve()), self.settings.plain, self.meta, self.command]

    @classmethod
    def from_json(
        cls, path: str, plain: Mapping[str, Any], meta: Mapping[str, Any], command: str
    ) -> "Job":
        return cls(RunFolder(Path(path)), RunSettings.of(plain), meta, command)


def _folder_of(own: str, new: Path) -> Path:
    """The folder that has the run with this id, a finished one first; else the new one.

    A run may have begun in another sweep, or alone, and have another name from there.
    """
    if new.is_dir():
        return new
    found = _folders_with(own, new.parent)
    return next((path for path in found if (path / "result.json").is_file()), [*found, new][0])


def _folders_with(own: str, suite: Path) -> list[Path]:
    """The folders of a suite whose names end in the id."""
    return sorted(path for path in suite.glob(f"*-{own}") if path.is_dir())


class Outcome(NamedTuple):
    """How a run, or one attempt at it, ended.

    Args:
        status: done, skipped (done before), diverged, failed, stopped (can resume) or elsewhere
            (another process is running it).
        run: its name.
        reason: one line.
        kind: of a failure: data (settings or data; not retried), memory (of GPU or machine), disk
            (full, read-only or failing), device (a missing or broken GPU), crash, or killed.
    """

    status: str
    run: str
    reason: str = ""
    kind: str = ""

    @classmethod
    def of(cls, folder: RunFolder, result: Mapping[str, Any]) -> "Outcome":
        """What a result, as result.json holds it, says."""
        return cls(result["status"], folder.path.name, result["reason"] or "")

    @classmethod
    def ended(cls, folder: RunFolder) -> "Outcome":
        """The outcome in result.json."""
        return cls.of(folder, folder.ended())

    @classmethod
    def existing(cls, folder: RunFolder) -> "Outcome":
        """The outcome of a run that was finished before."""
        outcome = cls.ended(folder)
        return outcome._replace(status="skipped") if outcome.status == "done" else outcome

    @classmethod
    def stopped(cls, folder: RunFolder) -> "Outcome":
        """The outcome of a run that a signal has stopped and that has saved."""
        return cls("stopped", folder.path.name, "stopped by a signal; the next launch resumes it")

    @classmethod
    def elsewhere(
        cls, folder: RunFolder, reason: str = "another process took it over"
    ) -> "Outcome":
        """The outcome of a run that another process is running."""
        return cls("elsewhere", folder.path.name, reason)

    @classmethod
    def failed(cls, folder: RunFolder, error: BaseException) -> "Outcome":
        """The outcome of a run that has raised an error."""
        kind, reason = described(error)
        return cls("failed", folder.path.name, reason, kind)

    @property
    def good(self) -> bool:
        return self.status in ("done", "skipped")

    @property
    def exit_status(self) -> int:
        """The exit status of a process for this run."""
        return {"failed": 1, "stopped": REQUEUE, "elsewhere": REQUEUE}.get(self.status, 0)

    def __str__(self) -> str:
        detail = f"{self.kind}: {self.reason}" if self.kind else self.reason
        return f"{self.status}: {self.run}: {detail}"

    def row(self) -> dict[str, Any]:
        """The row in the launch log."""
        row = {"status": self.status, "folder": self.run, "reason": self.reason}
        return row | ({"kind": self.kind} if self.kind else {})


def note_failure(folder: RunFolder, outcome: Outcome) -> None:
    """Write failure.json, with the last lines of the log, if the disk has room."""
    about = {"kind": outcome.kind, "reason": outcome.reason}
    tail = tail_of(folder.log)
    with contextlib.suppress(OSError):  # the launching process also gets the outcome
        write_json(folder.failure, {**about, "log": str(folder.log), "tail": tail})


def described(error: BaseException) -> tuple[str, str]:
    """Kind and one-line reason of an error."""
    text = redacted(" ".join(str(error).split()))
    if (disk := _disk(error)) is not None:
        return DISK, disk
    if isinstance(error, Lost):
        return KILLED, text
    if isinstance(error, UserError):
        return (DEVICE if isinstance(error, NoDevice) else DATA), text
    refused = "can't allocate memory" in text  # torch has no exception type for the CPU
    if refused or isinstance(error, MemoryError | torch.OutOfMemoryError):
        return MEMORY, text.split(" Including ")[0][:300] or "out of memory"
    if isinstance(error, RuntimeError) and ("CUDA error" in text or "NVIDIA" in text):
        # later lines are advice on debugging
        return DEVICE, redacted(str(error).strip().splitlines()[0][:300])
    return CRASH, f"{type(error).__name__}: {text}"[:300]


def _disk(error: BaseException) -> str | None:
    """The disk fault, and its file, among the causes of an error."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno in _DISK:
            return _DISK[cause.errno] + (f": {cause.filename}" if cause.filename else "")
        for text, meaning in _DISK_MESSAGES.items():
            if text in str(cause):
                return meaning
        cause = cause.__cause__ or cause.__context__
    return None


def tail_of(log: Path) -> list[str]:
    """The last lines of a log; empty if there is no log."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 10_000))
            return file.read().decode(errors="replace").splitlines()[-_TAIL:]
    except OSError:
        return []


def kernel_kills() -> int:
    """How many processes of this control group the kernel has killed for memory."""
    try:
        lines = Path("/sys/fs/cgroup/memory.events").read_text().splitlines()
    except OSError:
        return 0
    counts: dict[str, Any] = dict(line.split() for line in lines)
    return int(counts.get("oom_kill", 0))


def ended_by(number: int, memory: bool) -> tuple[str, str]:
    """Kind and reason of an end by a signal. memory: the kernel killed a process for memory."""
    if memory:
        return MEMORY, "out of memory: the system killed it"
    return KILLED, f"killed by signal {number}"


def _environment() -> dict[str, Any]:
    """Commit, versions and machine."""
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
        git = subprocess.run(
            command, cwd=PACKAGE_DIR.parent, capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        return None
    return git.stdout.strip() or None
