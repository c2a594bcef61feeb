"""The lock of a run folder: one process at a time, on all machines that share the folder."""

import os
import secrets
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from zobench.run.fence import UNFINISHED, Fence, discard, install_fence, remove_fence

LOCK = ".lock"
LEASE = 120.0  # seconds without a heartbeat until an owner on another machine counts as gone
_HEARTBEAT = 15.0
_NAMELESS = 5.0  # seconds after which a lock without an owner's name was left by a killed process
LOST = 18  # exit status of a process that lost its run to another one


class Busy(Exception):
    """Another process is running the run; the text names it."""


class Owner(NamedTuple):
    """A process that has claimed a run. silent: seconds since its last heartbeat."""

    pid: int
    host: str
    silent: float

    @property
    def here(self) -> bool:
        return self.host == socket.gethostname()

    @property
    def alive(self) -> bool:
        return abs(self.silent) < LEASE and (not self.here or lives(self.pid))

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}, last seen {max(0.0, self.silent):.0f} s ago"


@contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Hold the lock of a run folder inside the block; raises Busy if another process does.

    `.lock` names its owner and is touched every 15 s (filelock.SoftFileLease, which needs no locks
    of the file system). The lock of a dead process of this machine is taken over at once, any other
    after LEASE seconds without a heartbeat. A process that was paused and lost its lock exits with
    LOST before it writes anything (zobench.run.fence). Raises OSError for a read-only folder.
    """
    from filelock import SoftFileLease, Timeout

    _remove_nameless(folder)
    aside = folder / f".{secrets.token_hex(8)}{UNFINISHED}"
    lease = SoftFileLease(
        folder / LOCK,
        lease_duration=LEASE,
        heartbeat_interval=_HEARTBEAT,
        on_compromise=lambda _: leave(),
        thread_local=False,
    )

    def holds() -> bool:
        owner = lease.owner
        return owner is not None and owner.token == lease.token

    def leave() -> None:
        text = f"{folder / LOCK} belongs to another process: this one exits"
        print(text, file=sys.stderr, flush=True)
        discard(aside)
        os._exit(LOST)

    try:
        lease.acquire(timeout=_timeout(folder), poll_interval=0.05)
    except Timeout:
        raise Busy(str(owner_of(folder) or "another process")) from None
    fence = Fence(folder, holds, leave, aside)
    install_fence(fence)
    try:
        fence.clean()
        yield
    finally:
        remove_fence(fence)
        lease.release()


def _remove_nameless(folder: Path) -> None:
    """Remove a lock without an owner's name, which filelock would respect forever.

    A process killed between creating the file and writing its name leaves one. The file is renamed
    first, so that two processes that do this cannot remove each other's new lock.
    """
    path, renamed = folder / LOCK, folder / f"{LOCK}.{os.getpid()}{UNFINISHED}"
    with suppress(FileNotFoundError, FileExistsError):
        while owner_of(folder) is None:
            seen = path.read_bytes()
            if time.time() - path.stat().st_mtime < _NAMELESS:
                time.sleep(0.02)
                continue
            path.rename(renamed)
            if renamed.read_bytes() != seen:  # a lock that was taken meanwhile
                os.link(renamed, path)
            renamed.unlink()


def lives(pid: int) -> bool:
    """Whether the process exists on this machine."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # another user's
    return True


def owner_of(folder: Path) -> Owner | None:
    """The owner of a run's lock, alive or not; None if there is none."""
    from filelock import SoftFileLease

    path = folder / LOCK
    try:
        silent = time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return None
    found = SoftFileLease(path, lease_duration=LEASE).owner
    if found is None:  # half written, or removed meanwhile
        return None
    return Owner(found.pid, found.hostname.split("?")[0], silent)


def _timeout(folder: Path) -> float:
    """Seconds to wait for the lock: long only if a heartbeat may still come."""
    owner = owner_of(folder)
    silent = owner is not None and not owner.alive and not (owner.here and not lives(owner.pid))
    return LEASE + _HEARTBEAT if silent else 0.5
