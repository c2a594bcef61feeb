"""A GPU for each run: claimed by a lock that the run itself holds, and the kernel frees.

Each GPU has a lock file in a folder of the machine. Whatever ends the run (SIGKILL included) closes
the file and with it the claim; whoever launched the run may die before it, and the GPU stays the
run's. Claims are between runs of one user; other programs know nothing of them.
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
_PAUSE = 0.5  # seconds between two looks for a free GPU

_held: FileLock | None = None  # this process' claim, until its end


def own_gpu(on_wait: Callable[[str], None], runs: int = 1) -> None:
    """Make a GPU that fewer than `runs` others have claimed the only one that this process sees.

    Waits for one where all are claimed, and calls `on_wait` once with a sentence that says so. To
    be called before anything makes a CUDA context.
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
    """A lock of one of the GPUs, once there is one; its file has the name of the GPU and a dot.

    A GPU has one for each of its `runs`. Those with the fewest runs come first.
    """
    endings = ["lock", *(f"{place}.lock" for place in range(1, runs))]
    locks = [FileLock(folder / f"{gpu}.{ending}") for ending in endings for gpu in gpus]
    told = False
    while True:
        for lock in locks:
            try:
                lock.acquire(blocking=False)
            except Timeout:
                continue
            return lock
        if not told:
            on_wait(f"all GPUs here are taken by other runs ({len(gpus)}): waiting for a free one")
            told = True
        time.sleep(_PAUSE)


def visible_gpus() -> list[str]:
    """UUIDs of the GPUs, or of their MIG devices, that CUDA_VISIBLE_DEVICES leaves this process.

    The driver's tool is asked, which makes no CUDA context here: the process may fork afterwards.
    """
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return []
    return left_by(os.environ.get(VISIBLE), listed.stdout)


def left_by(allowed: str | None, listing: str) -> list[str]:
    """What CUDA_VISIBLE_DEVICES leaves of the GPUs in a listing of `nvidia-smi -L`.

    As in CUDA it has numbers or beginnings of UUIDs, and ends at the first that there is not.
    Numbers are places in the listing, as they are in CUDA where all GPUs are of one kind.
    """
    gpus: list[list[str]] = []  # each with its MIG devices, which are used in its stead
    for name in re.findall(r"UUID: ((?:GPU|MIG)-[^)\s]+)\)", listing):
        if name.startswith("GPU"):
            gpus.append([name])
        else:
            gpus[-1].append(name)
    usable = [devices[1:] or devices for devices in gpus]
    names = [name for devices in usable for name in devices]
    if allowed is None:
        return names
    left: list[str] = []
    for wanted in allowed.split(","):
        if wanted.strip().isdigit():
            found = usable[int(wanted)] if int(wanted) < len(usable) else []
        else:
            found = [name for name in names if wanted.strip() and name.startswith(wanted.strip())]
        if not found:
            break
        left += [name for name in found[:1] if name not in left]
    return left


def _folder() -> Path:
    """Where this user's runs on this machine meet; nobody else may write there."""
    folder = Path(tempfile.gettempdir()) / f"zobench-gpus-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise UserError(f"{folder}: is another user's; set TMPDIR to a folder of this machine")
    return folder
