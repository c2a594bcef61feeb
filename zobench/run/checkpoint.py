"""Checkpoints, for what the ledger cannot rebuild: optimizers by back-propagation, laws of data."""

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
    """`checkpoint-STEP-CRC32.pt` in a run folder: the last two, each whole by its own name.

    steps, minutes: how many of either may pass between two of them; None is any number.
    """

    def __init__(self, folder: Path, steps: int | None, minutes: float | None) -> None:
        self.folder, self.steps, self.minutes = folder, steps, minutes
        self._last_time, self._last_step = time.monotonic(), -1

    def due(self, step: int) -> bool:
        """Whether one should be written after `step` steps, now."""
        if step == self._last_step:
            return False
        by_steps = self.steps is not None and step > 0 and step % self.steps == 0
        waited = time.monotonic() - self._last_time
        return by_steps or (self.minutes is not None and waited >= 60 * self.minutes)

    def save(self, step: int, state: Mapping[str, Any]) -> None:
        """Write the state of after `step` steps, unless it is there; keep the last two."""
        if step == self._last_step:
            return
        fence = fence_of(self.folder)
        partial = fence.place(self.folder / "checkpoint")
        summed = _Summed()

        def write(file: BinaryIO) -> None:
            summed.file = file
            torch.save(dict(state), summed)  # type: ignore[arg-type]

        write_durably(partial, write)
        fence.put(partial, self.folder / f"checkpoint-{step:09d}-{summed.crc:08x}.pt")
        sync(self.folder)
        for older in self._files()[:-_KEPT]:
            fence.remove(older)
        self._last_time, self._last_step = time.monotonic(), step

    def latest(self) -> tuple[int, dict[str, Any]] | None:
        """Step and state of the newest that is whole, on the CPU; damaged ones are named."""
        for path in reversed(self._files()):
            _, step, crc = path.stem.split("-")
            if f"{crc32_of(path):08x}" == crc:
                self._last_step = int(step)
                state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
                return int(step), state
            print(f"{path} is damaged: it is left out", file=sys.stderr, flush=True)
        return None

    def forget_after(self, step: int) -> None:
        """Remove those of later steps."""
        for path in self._files():
            if int(path.stem.split("-")[1]) > step:
                fence_of(self.folder).remove(path)

    def clear(self) -> None:
        """Remove them all: the run has its result, or begins anew."""
        for path in self._files():
            fence_of(self.folder).remove(path)

    def _files(self) -> list[Path]:
        """Oldest first."""
        return sorted(self.folder.glob("checkpoint-*-*.pt"))


class _Summed:
    """A file to write to that sums up what it is given; torch.save asks for no more."""

    file: BinaryIO

    def __init__(self) -> None:
        self.crc = 0

    def write(self, data: bytes) -> int:
        self.crc = zlib.crc32(data, self.crc)
        return self.file.write(data)

    def flush(self) -> None:
        self.file.flush()
