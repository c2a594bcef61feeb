"""Seeded random draws that leave the global random state unchanged."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed torch's global generators inside the block, and restore them after it.

    For libraries that draw from the global state: classification heads, LoRA, soft prompts.
    """
    devices = range(torch.cuda.device_count())  # manual_seed seeds all of them
    with torch.random.fork_rng(devices):
        torch.manual_seed(seed)
        yield
