"""A process writes to a run folder only while it holds the folder's lock.

A process that is paused (SIGSTOP, a suspended machine, a stalled disk) for longer than its lock
lives loses its run without noticing. Its late writes cannot damage the new owner's files: the lock
is read before each write (between steps, once a second); files are written to a private folder and
renamed from there, and the new owner first removes that folder, so a late rename fails; and each
owner replaces the files that grow, so a late append goes to an unlinked file.
"""

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

UNFINISHED = ".unfinished"  # suffix of files that may be incomplete
_GRACE = 1.0  # seconds: a lock may seem lost while another process inspects it by renaming it
_POLL = 0.05
# this clock also runs while the machine is suspended, if the system has it
_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class Fence:
    """Guards the writes to a run folder.

    Args:
        folder: the run folder.
        holds: whether this process holds the lock; None disables the checks.
        leave: ends the process if it does not.
        aside: the claim's private folder, made at the first write.
    """

    def __init__(
        self,
        folder: Path,
        holds: Callable[[], bool] | None = None,
        leave: Callable[[], object] = lambda: None,
        aside: Path | None = None,
    ) -> None:
        self.folder, self.aside = folder, aside
        self._holds, self._leave = holds, leave
        self._made = False
        self._seen = -1.0

    def check(self, within: float = 0.0) -> None:
        """End the process if it lost the lock, which is read once in `within` seconds."""
        now = _now()
        if self._holds is None or 0.0 <= now - self._seen < within:
            return
        while not self._holds():
            if _now() - now > _GRACE:
                self._leave()
            time.sleep(_POLL)
        self._seen = now

    def place(self, path: Path) -> Path:
        """The temporary path to write to before `put`."""
        if self.aside is None:
            return path.with_name(f".{path.name}.{os.getpid()}{UNFINISHED}")
        self.check()
        if not self._made:
            self.aside.mkdir(exist_ok=True)
            self.check()  # the claim still held, so the next owner will find and remove the folder
            self._made = True
        return self.aside / path.name

    def put(self, place: Path, path: Path) -> None:
        """Rename a temporary file, or another file of the folder, to `path`."""
        self.check()
        try:
            place.replace(path)
        except FileNotFoundError:
            self.check()
            raise

    def remove(self, path: Path) -> None:
        """Remove a file or a folder tree, if it exists."""
        if not path.is_symlink() and not path.exists():
            return
        place = self.place(path.with_name(f"{path.name}.gone"))
        discard(place)
        try:
            path.replace(place)
        except FileNotFoundError:
            self.check()
        discard(place)

    def clean(self) -> None:
        """Remove what earlier processes left unfinished, so that their late renames fail."""
        for other in self.folder.glob(f".*{UNFINISHED}"):
            if other != self.aside:
                self.remove(other)


_fences: dict[str, Fence] = {}  # of the folders that this process has claimed


def fence_of(folder: Path) -> Fence:
    """The fence around a run folder."""
    return _fences.get(os.path.abspath(folder)) or Fence(folder)


def install_fence(fence: Fence) -> None:
    """Check the fence at all writes to its folder."""
    _fences[os.path.abspath(fence.folder)] = fence


def remove_fence(fence: Fence) -> None:
    """Stop checking, and remove the private folder."""
    del _fences[os.path.abspath(fence.folder)]
    if fence.aside is not None:
        discard(fence.aside)


def discard(path: Path) -> None:
    """Remove a file or folder without checks."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    elif path.is_symlink() or path.exists():
        os.unlink(path)


def _now() -> float:
    return time.clock_gettime(_CLOCK)
