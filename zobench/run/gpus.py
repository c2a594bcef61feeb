"""A GPU for each run: the run holds a lock on a file per GPU, which the kernel frees.

However the run ends (SIGKILL included), its lock is released; it does not depend on the process
that launched the run. Only runs of the same user see the locks; other programs do not.
"""

import os
import re
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from filelock import FileLock, Timeout

from zobench.errors import UserError

VISIBLE = "CUDA_VISIBLE_DEVICES"
_PAUSE = 0.5  # seconds between two attempts to lock a GPU

_held: FileLock | None = None  # this process's claim, until its end


def claim_gpu(on_wait: Callable[[str], None], runs: int = 1) -> None:
    """Claim a GPU that fewer than `runs` others have claimed, and hide all others.

    Call it before anything makes a CUDA context. If all GPUs are claimed, it calls `on_wait` once
    with a message, and waits.
    """
    global _held
    if _held is None:
        gpus = visible_gpus()
        if not gpus:
            raise UserError("device=free: nvidia-smi shows no GPU here; choose cuda:N or cpu")
        _held = claim(gpus, _folder(), on_wait, runs)
        os.environ[VISIBLE] = Path(_held.lock_file).name.partition(".")[0]


def claim(
    gpus: Sequence[str], folder: Path, on_wait: Callable[[str], None], runs: int = 1
) -> FileLock:
    """Wait for a lock on one of the GPUs; each has `runs` lock files, named after the GPU.

    GPUs with fewer runs come first.
    """
    endings = ["lock", *(f"{place}.lock" for place in range(1, runs))]
    locks = [FileLock(folder / f"{gpu}.{ending}") for ending in endings for gpu in gpus]
    announced = False
    while True:
        for lock in locks:
            try:
                lock.acquire(blocking=False)
            except Timeout:
                continue
            return lock
        if not announced:
            on_wait(f"all GPUs here are taken by other runs ({len(gpus)}): waiting for a free one")
            announced = True
        time.sleep(_PAUSE)


def visible_gpus() -> list[str]:
    """UUIDs of the GPUs (or MIG devices) that CUDA_VISIBLE_DEVICES allows.

    nvidia-smi lists them, without a CUDA context in this process, which may fork afterwards.
    """
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return []
    return select_visible(os.environ.get(VISIBLE), listed.stdout)


def select_visible(allowed: str | None, listing: str) -> list[str]:
    """The GPUs of a `nvidia-smi -L` listing that CUDA_VISIBLE_DEVICES (`allowed`) selects.

    As in CUDA, entries are indices or prefixes of UUIDs, and the first unknown entry ends the list.
    """
    gpus: list[list[str]] = []  # each followed by its MIG devices, which replace it
    for name in re.findall(r"UUID: ((?:GPU|MIG)-[^)\s]+)\)", listing):
        if name.startswith("GPU"):
            gpus.append([name])
        else:
            gpus[-1].append(name)
    usable = [devices[1:] or devices for devices in gpus]
    names = [name for devices in usable for name in devices]
    if allowed is None:
        return names
    selected: list[str] = []
    for entry in map(str.strip, allowed.split(",")):
        if entry.isdigit():
            found = usable[int(entry)] if int(entry) < len(usable) else []
        else:
            found = [name for name in names if entry and name.startswith(entry)]
        if not found:
            break
        selected += [name for name in found[:1] if name not in selected]
    return selected


def _folder() -> Path:
    """The folder of this user's lock files on this machine; no other user may write to it."""
    folder = Path(tempfile.gettempdir()) / f"zobench-gpus-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise UserError(f"{folder}: belongs to another user; set TMPDIR to a local folder")
    return folder
