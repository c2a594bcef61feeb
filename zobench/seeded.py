"""Draws of one's own: seeded, and without a trace in the global random state."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Inside the block torch's global generators start from `seed`; outside nothing has changed.

    For what libraries draw from the global state: classification heads, LoRA, soft prompts.
    """
    devices = range(torch.cuda.device_count())  # seeding below reaches every one of them
    with torch.random.fork_rng(devices):
        torch.manual_seed(seed)
        yield
