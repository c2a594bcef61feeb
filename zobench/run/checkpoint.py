"""Checkpoints, for runs that a ledger cannot replay: back-propagation, laws that depend on data."""

import sys
import time
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch

from zobench.run.durable import crc32_of, sync, write_durably
from zobench.run.fence import fence_of

_KEPT = 2


class Checkpoints:
    """The last two `checkpoint-STEP-CRC32.pt` of a run folder; the CRC shows whether one is intact.

    steps, minutes: the period of checkpoints; None: no limit.
    """

    def __init__(self, folder: Path, steps: int | None, minutes: float | None) -> None:
        self.folder, self.steps, self.minutes = folder, steps, minutes
        self._last_time, self._last_step = time.monotonic(), -1

    def due(self, step: int) -> bool:
        """Whether to write a checkpoint now, after `step` steps."""
        if step == self._last_step:
            return False
        by_steps = self.steps is not None and step > 0 and step % self.steps == 0
        waited = time.monotonic() - self._last_time
        return by_steps or (self.minutes is not None and waited >= 60 * self.minutes)

    def save(self, step: int, state: Mapping[str, Any]) -> None:
        """Write the state after `step` steps, unless it is stored; keep the last two."""
        if step == self._last_step:
            return
        fence = fence_of(self.folder)
        partial = fence.place(self.folder / "checkpoint")
        crc_file = _CRCFile()

        def write(file: BinaryIO) -> None:
            crc_file.file = file
            torch.save(dict(state), crc_file)  # type: ignore[arg-type]

        write_durably(partial, write)
        fence.put(partial, self.folder / f"checkpoint-{step:09d}-{crc_file.crc:08x}.pt")
        sync(self.folder)
        for older in self._files()[:-_KEPT]:
            fence.remove(older)
        self._last_time, self._last_step = time.monotonic(), step

    def latest(self) -> tuple[int, dict[str, Any]] | None:
        """Step and state (on the CPU) of the newest intact file; damaged ones are reported."""
        for path in reversed(self._files()):
            _, step, crc = path.stem.split("-")
            if f"{crc32_of(path):08x}" == crc:
                self._last_step = int(step)
                state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
                return int(step), state
            print(f"{path} is damaged and is ignored", file=sys.stderr, flush=True)
        return None

    def clear(self, after: int = -1) -> None:
        """Remove the checkpoints of all steps later than `after`."""
        for path in self._files():
            if int(path.stem.split("-")[1]) > after:
                fence_of(self.folder).remove(path)

    def _files(self) -> list[Path]:
        """Oldest first."""
        return sorted(self.folder.glob("checkpoint-*-*.pt"))


class _CRCFile:
    """Computes the CRC-32 of what is written; has the methods that torch.save needs."""

    file: BinaryIO

    def __init__(self) -> None:
        self.crc = 0

    def write(self, data: bytes) -> int:
        self.crc = zlib.crc32(data, self.crc)
        return self.file.write(data)

    def flush(self) -> None:
        self.file.flush()
