"""Writing to a run folder as long as it is this process's, and not a moment longer.

A process that stands still (SIGSTOP, a suspended machine, a stalled disk) for longer than its lock
lives loses its run, and knows nothing of it when it goes on. Three things keep its writes away from
the new owner's: the lock is read again before each write (between steps, once a second); files are
written in a folder of the claim's own, from which they are renamed and which the new owner removes
first of all, so that a late rename finds nothing; and files that grow are renewed by each owner, so
that a late append goes to a file without a name.
"""

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

UNFINISHED = ".unfinished"  # the end of the name of a file that may have been left half written
_DOUBT = 1.0  # seconds for which a lock may seem gone: another's look at it renames it for a moment
_LOOKS = 0.05
# the clock that goes on while the machine is suspended, where there is one
_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class Fence:
    """Around a run folder. Without a claim it stands open: nothing is checked.

    holds: whether the lock on the disk is this process's. leave: ends the process, where it is not.
    aside: the claim's own folder, made when something is to be written first.
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
        """Return if the folder is this process's; else end the process.

        within: so many seconds after the last look at the lock it is not looked at again.
        """
        now = _now()
        if self._holds is None or 0.0 <= now - self._seen < within:
            return
        while not self._holds():
            if _now() - now > _DOUBT:
                self._leave()
            time.sleep(_LOOKS)
        self._seen = now

    def place(self, path: Path) -> Path:
        """Where to write what is to be put under the path's name."""
        if self.aside is None:
            return path.with_name(f".{path.name}.{os.getpid()}{UNFINISHED}")
        self.check()
        if not self._made:
            self.aside.mkdir(exist_ok=True)
            self.check()  # made while the claim held: who takes it over will find and remove it
            self._made = True
        return self.aside / path.name

    def put(self, place: Path, path: Path) -> None:
        """Give the path's name to what has been written, or to another file of the folder."""
        self.check()
        try:
            place.replace(path)
        except FileNotFoundError:
            self.check()
            raise

    def remove(self, path: Path) -> None:
        """Remove a file, or a folder with all that is in it, if it is there."""
        if not path.is_symlink() and not path.exists():
            return
        place = self.place(path.with_name(f"{path.name}.gone"))
        discard(place)
        try:
            path.replace(place)
        except FileNotFoundError:
            self.check()  # else it has gone by itself
        discard(place)

    def clean(self) -> None:
        """Remove what earlier processes left unfinished: what they still write has no place."""
        for other in self.folder.glob(f".*{UNFINISHED}"):
            if other != self.aside:
                self.remove(other)


_fences: dict[str, Fence] = {}  # of the folders that this process has claimed


def fence_of(folder: Path) -> Fence:
    """The fence around a run folder."""
    return _fences.get(os.path.abspath(folder)) or Fence(folder)


def put_up(fence: Fence) -> None:
    """Let all writes to the folder look at its fence."""
    _fences[os.path.abspath(fence.folder)] = fence


def take_down(fence: Fence) -> None:
    """The claim is over."""
    del _fences[os.path.abspath(fence.folder)]
    if fence.aside is not None:
        discard(fence.aside)


def discard(path: Path) -> None:
    """Remove a file or folder of the claim's own."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    elif path.is_symlink() or path.exists():
        os.unlink(path)


def _now() -> float:
    return time.clock_gettime(_CLOCK)
