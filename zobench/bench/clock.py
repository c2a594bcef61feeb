"""The clock of all measurements."""

import time
from collections.abc import Callable

import torch


def seconds_of(once: Callable[[], object], device: torch.device) -> float:
    """The time of one call, with what it launches on a GPU."""
    _wait(device)
    start = time.perf_counter()
    once()
    _wait(device)
    return time.perf_counter() - start


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
