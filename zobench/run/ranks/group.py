"""The processes of one run: who is who, and what they tell each other."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

_PATIENCE = timedelta(minutes=30)  # one that is alive and does not answer, say while it loads
_STARTED = ("RANK", "WORLD_SIZE", "LOCAL_RANK")


class Lost(RuntimeError):
    """Another rank has ended, or does not answer."""


class Group:
    """The ranks of a run, which torchrun has numbered; rank 0 is the first.

    They talk on the CPU (gloo), and all in the same order: a method returns when every rank has
    called it. Raises Lost where that cannot be.
    """

    def __init__(self) -> None:
        self.rank, self.size, self.place = (int(os.environ[name]) for name in _STARTED)
        self.sound = True  # while all ranks are at the same place
        with self._lost():
            dist.init_process_group("gloo", timeout=_PATIENCE)

    @property
    def first(self) -> bool:
        return self.rank == 0

    def all(self, value: Any) -> list[Any]:
        """What each rank has, in their order."""
        values: list[Any] = [None] * self.size
        with self._lost():
            dist.all_gather_object(values, value)
        return values

    def from_first(self, value: Any = None) -> Any:
        """What the first rank has."""
        values = [value]
        with self._lost():
            dist.broadcast_object_list(values, src=0)
        return values[0]

    def wait(self) -> None:
        """Until all are here."""
        with self._lost():
            dist.barrier()

    def rows(self, mine: Tensor, counts: Sequence[int]) -> Tensor:
        """The rows of all ranks, in their order; counts: how many each has. No bit is changed."""
        own = mine.detach().cpu()
        sent = own.new_zeros((max(counts), *own.shape[1:]))
        sent[: counts[self.rank]] = own[: counts[self.rank]]
        received = [torch.empty_like(sent) for _ in counts]
        with self._lost():
            dist.all_gather(received, sent)
        parts = [part[:count] for part, count in zip(received, counts, strict=True)]
        return torch.cat(parts).to(mine.device)

    def words(self, own: Sequence[int]) -> list[list[int]]:
        """A few signed 64-bit numbers of each rank."""
        mine = torch.tensor(own, dtype=torch.int64).unsqueeze(0)
        table: list[list[int]] = self.rows(mine, [1] * self.size).tolist()
        return table

    def leave(self) -> None:
        dist.destroy_process_group()

    @contextmanager
    def _lost(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:  # also of torch.distributed's own types
            self.sound = False
            reason = str(error).strip().splitlines()[0].rpartition("] ")[2]
            raise Lost(f"another rank has ended or does not answer ({reason[:120]})") from error


_joined: Group | None = None


def started() -> bool:
    """Whether torchrun has started this process."""
    return all(name in os.environ for name in _STARTED)


def joined() -> Group:
    """The group that this process is of; the first call waits for all ranks."""
    global _joined
    if _joined is None:
        _joined = Group()
    return _joined


def here() -> Group | None:
    """The group, where there is more than one rank."""
    return joined() if started() and int(os.environ["WORLD_SIZE"]) > 1 else None
