"""Who is at a run: one process at a time, on whatever machine sees its folder."""

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
LEASE = 120.0  # seconds without a heartbeat until an owner that cannot be looked for counts as gone
_HEARTBEAT = 15.0
_NAMELESS = 5.0  # seconds after which a lock that names no owner was left by one that was killed
LOST = 18  # exit status of a process that found another one at its run


class Busy(Exception):
    """Another process is at the run; the text says which."""


class Owner(NamedTuple):
    """A process that has claimed a run, as far as can be seen from here.

    silent: seconds since its last heartbeat.
    """

    pid: int
    host: str
    silent: float

    @property
    def here(self) -> bool:
        """Whether its process id means something on this machine."""
        return self.host == socket.gethostname()

    @property
    def alive(self) -> bool:
        return abs(self.silent) < LEASE and (not self.here or lives(self.pid))

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}, heard {max(0.0, self.silent):.0f} s ago"


@contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Be the one process at the run inside the block; Busy where another one is.

    `.lock` in the folder names its owner and is touched every 15 s. The lock of a process of this
    machine that is gone is taken over at once; any other after LEASE seconds without a heartbeat,
    by the clock of who waits (filelock.SoftFileLease, which needs no locks of the file system's). A
    process whose lock was taken over while it stood still ends with status LOST before it writes
    anything, since the folder is another's (zobench.run.fence). Raises OSError where the folder
    cannot be written.
    """
    from filelock import SoftFileLease, Timeout

    _bury(folder)
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
        text = f"{folder / LOCK} is another's: this process ends here"
        print(text, file=sys.stderr, flush=True)
        discard(aside)
        os._exit(LOST)

    try:
        lease.acquire(timeout=_patience(folder), poll_interval=0.05)
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


def _bury(folder: Path) -> None:
    """Remove a lock without an owner's name, which filelock would respect for ever.

    A process that is killed between making the file and writing its name leaves one; a living one
    writes at once. Renamed first, so that of two who do this none removes the other's own lock.
    """
    path, mine = folder / LOCK, folder / f"{LOCK}.{os.getpid()}{UNFINISHED}"
    with suppress(FileNotFoundError, FileExistsError):
        while owner_of(folder) is None:
            seen = path.read_bytes()
            if time.time() - path.stat().st_mtime < _NAMELESS:
                time.sleep(0.02)
                continue
            path.rename(mine)
            if mine.read_bytes() != seen:  # a lock that was taken meanwhile
                os.link(mine, path)
            mine.unlink()


def lives(pid: int) -> bool:
    """Whether this machine has the process, whoever's it is."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # another user's
    return True


def owner_of(folder: Path) -> Owner | None:
    """Who has claimed the run, alive or not; None for nobody."""
    from filelock import SoftFileLease

    path = folder / LOCK
    try:
        silent = time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return None
    found = SoftFileLease(path, lease_duration=LEASE).owner
    if found is None:  # in the middle of being written, or removed meanwhile
        return None
    return Owner(found.pid, found.hostname.split("?")[0], silent)


def _patience(folder: Path) -> float:
    """Seconds to wait for the lock: long only where a heartbeat has to be listened for."""
    owner = owner_of(folder)
    silent = owner is not None and not owner.alive and not (owner.here and not lives(owner.pid))
    return LEASE + _HEARTBEAT if silent else 0.5
