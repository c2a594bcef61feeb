"""Time and peak memory by phase; a peak is reset when its phase begins."""

import resource
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch

_GIB = 2**30


class Meter:
    """Seconds and peak GiB of each phase of a run on one device.

    CUDA: peak allocated and reserved bytes. CPU: peak resident set of the process, libraries
    included; if the system cannot reset it (not Linux), the peak since the start.
    """

    def __init__(
        self, device: torch.device, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self.device, self.clock = device, clock
        self.peaks: dict[str, dict[str, float]] = {}
        self._seconds: dict[str, float] = {}
        self._open: tuple[str, float] | None = None
        self.restored = 0.0  # seconds of earlier attempts

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Measure the block under `name`; entering again adds time and keeps the peak."""
        assert self._open is None, "phases do not nest"
        self._reset()
        self._open = (name, self.clock())
        try:
            yield
        finally:
            if self.device.type == "cuda":
                torch.cuda.synchronize(self.device)
            self._seconds[name] = self.seconds(name)
            self._note_peak(name, self._peak())
            self._open = None

    def seconds(self, name: str) -> float:
        """Seconds in the phase so far, also inside it."""
        done = self._seconds.get(name, 0.0)
        if self._open is not None and self._open[0] == name:
            return done + self.clock() - self._open[1]
        return done

    def restore(self, name: str, seconds: float, peaks: Mapping[str, float] | None = None) -> None:
        """Start from the seconds and peaks of an earlier attempt."""
        self.restored += seconds - self._seconds.get(name, 0.0)
        self._seconds[name] = seconds
        self._note_peak(name, peaks or {})

    def peak_gib(self, name: str) -> float:
        """Peak GiB of the phase so far, also inside it; 0 if it never began."""
        if self._open is not None and self._open[0] == name:
            self._note_peak(name, self._peak())
        return self.peaks.get(name, {}).get("peak_gib", 0.0)

    def _note_peak(self, name: str, peaks: Mapping[str, float]) -> None:
        before = self.peaks.setdefault(name, {})
        for key, value in peaks.items():
            before[key] = max(before.get(key, 0.0), value)

    def _reset(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        elif sys.platform == "linux":
            try:
                Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM
            except OSError:
                return  # some containers forbid it: the peak is then since the start

    def _peak(self) -> dict[str, float]:
        if self.device.type == "cuda":
            return {
                "peak_gib": torch.cuda.max_memory_allocated(self.device) / _GIB,
                "reserved_gib": torch.cuda.max_memory_reserved(self.device) / _GIB,
            }
        return {"peak_gib": resident_peak_bytes() / _GIB}


def resident_peak_bytes() -> int:
    """Peak resident set since the last reset."""
    if sys.platform == "linux":
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
