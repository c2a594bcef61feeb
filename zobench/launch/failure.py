"""Kinds of failure: what they are called, how they are told apart, what of the log is kept."""

import contextlib
import errno
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch

from zobench.errors import UserError
from zobench.run.device import NoDevice
from zobench.run.folder import RunFolder, write_json
from zobench.run.ranks.group import Lost
from zobench.secret import redacted

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


class Failure(NamedTuple):
    """Why a run has no result.

    kind: data (settings or data, which no retry mends), memory (of the GPU or the machine), disk
    (full, read-only or failing), device (a GPU that is gone or broken), crash, or killed (from
    outside). reason: one line.
    """

    kind: str
    reason: str

    def write(self, folder: RunFolder) -> None:
        """failure.json, with the end of the log; nothing where the disk does not take it."""
        tail = tail_of(folder.log)
        with contextlib.suppress(OSError):  # who launched the run is told otherwise
            write_json(folder.failure, {**self._asdict(), "log": str(folder.log), "tail": tail})


def described(error: BaseException) -> Failure:
    """Kind and one-line reason of what a run has raised."""
    text = redacted(" ".join(str(error).split()))
    if (disk := _disk(error)) is not None:
        return Failure(DISK, disk)
    if isinstance(error, Lost):
        return Failure(KILLED, text)
    if isinstance(error, UserError):
        return Failure(DEVICE if isinstance(error, NoDevice) else DATA, text)
    refused = "can't allocate memory" in text  # torch's words for a CPU's; it has no type for it
    if refused or isinstance(error, MemoryError | torch.OutOfMemoryError):
        return Failure(MEMORY, text.split(" Including ")[0][:300] or "out of memory")
    if isinstance(error, RuntimeError) and ("CUDA error" in text or "NVIDIA" in text):
        # later lines are advice on debugging
        return Failure(DEVICE, redacted(str(error).strip().splitlines()[0][:300]))
    return Failure(CRASH, f"{type(error).__name__}: {text}"[:300])


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


def ended_by(number: int, memory: bool) -> Failure:
    """A process that ended by a signal, which the kernel sends where memory is short."""
    if memory:
        return Failure(MEMORY, "the system killed it for want of memory")
    return Failure(KILLED, f"killed by signal {number}")
