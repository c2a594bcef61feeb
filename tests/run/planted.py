"""Faults that are planted in one rank of a team; each is a function of the rank's number."""

import os
import signal
from collections.abc import Callable
from typing import Any

import torch

from tests.run.spoiled import spoil
from zobench.run.steps import Steps

_WHEN = 7  # steps taken before


def flipped_bit(rank: int) -> None:
    """One bit of one weight of rank 1 changes between two steps."""

    def flip(steps: Steps) -> None:
        if rank == 1:
            weight = steps.optimizer.param_groups[0]["params"][0]
            weight.data.view(torch.int32).view(-1)[3] ^= 1

    _before_a_step(flip)


def not_finite(rank: int) -> None:
    """What rank 1's model says of its examples becomes NaN."""

    def spoil(steps: Steps) -> None:
        if rank == 1:
            problem: Any = steps.problem
            whole = problem._by_example.outputs
            nan = lambda model, batch: whole(model, batch) * torch.nan  # noqa: E731
            object.__setattr__(problem._by_example, "outputs", nan)

    _before_a_step(spoil)


def spoiled(rank: int) -> None:
    """Of every third batch, by its tokens, the loss is NaN, for all ranks."""
    del rank
    spoil(3)


def killed(rank: int) -> None:
    """Rank 1 is killed."""
    _before_a_step(lambda _: os.kill(os.getpid(), signal.SIGKILL) if rank == 1 else None)


def first_killed(rank: int) -> None:
    """Rank 0 is killed."""
    _before_a_step(lambda _: os.kill(os.getpid(), signal.SIGKILL) if rank == 0 else None)


def asked_to_stop(rank: int) -> None:
    """Rank 1 gets SIGTERM."""
    _before_a_step(lambda _: os.kill(os.getpid(), signal.SIGTERM) if rank == 1 else None)


def out_of_memory(rank: int) -> None:
    """Rank 1 cannot allocate."""

    def fail(steps: Steps) -> None:
        del steps
        if rank == 1:
            raise torch.OutOfMemoryError("CUDA out of memory")

    _before_a_step(fail)


def _before_a_step(happens: Callable[[Steps], object]) -> None:
    prepare = Steps.prepare

    def prepared(steps: Steps, step: int) -> None:
        if step == _WHEN:
            happens(steps)
        prepare(steps, step)

    setattr(Steps, "prepare", prepared)  # noqa: B010  no type has this one
