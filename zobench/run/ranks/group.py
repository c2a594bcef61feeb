"""The processes of one run: their ranks, and how they exchange values."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

_TIMEOUT = timedelta(minutes=30)  # for a rank that is alive but busy, for instance loading
_VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK")


class Lost(RuntimeError):
    """Another rank has ended, or does not answer."""


class Group:
    """The ranks of a run, as torchrun has numbered them; rank 0 is the first.

    They communicate on the CPU (gloo). Methods are collective: all ranks call them in the same
    order, and wait for each other. They raise Lost if another rank is gone.
    """

    def __init__(self) -> None:
        self.rank, self.size, self.local_rank = (int(os.environ[name]) for name in _VARIABLES)
        self.sound = True  # False once the ranks are no longer in step
        with self._lost():
            dist.init_process_group("gloo", timeout=_TIMEOUT)

    @property
    def first(self) -> bool:
        return self.rank == 0

    def all(self, value: Any) -> list[Any]:
        """The values of all ranks, in order."""
        values: list[Any] = [None] * self.size
        with self._lost():
            dist.all_gather_object(values, value)
        return values

    def from_first(self, value: Any = None) -> Any:
        """The value of the first rank."""
        values = [value]
        with self._lost():
            dist.broadcast_object_list(values, src=0)
        return values[0]

    def wait(self) -> None:
        """Wait for all ranks."""
        with self._lost():
            dist.barrier()

    def rows(self, own: Tensor, counts: Sequence[int]) -> Tensor:
        """The rows of all ranks, in order and bit for bit; counts: the number of rows of each."""
        local = own.detach().cpu()
        sent = local.new_zeros((max(counts), *local.shape[1:]))
        sent[: counts[self.rank]] = local[: counts[self.rank]]
        received = [torch.empty_like(sent) for _ in counts]
        with self._lost():
            dist.all_gather(received, sent)
        parts = [part[:count] for part, count in zip(received, counts, strict=True)]
        return torch.cat(parts).to(own.device)

    def words(self, own: Sequence[int]) -> list[list[int]]:
        """The signed 64-bit numbers of all ranks."""
        row = torch.tensor(own, dtype=torch.int64).unsqueeze(0)
        table: list[list[int]] = self.rows(row, [1] * self.size).tolist()
        return table

    def leave(self) -> None:
        dist.destroy_process_group()

    @contextmanager
    def _lost(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:  # torch.distributed's own types included
            self.sound = False
            reason = str(error).strip().splitlines()[0].rpartition("] ")[2]
            raise Lost(f"another rank has ended or does not answer ({reason[:120]})") from error


_joined: Group | None = None


def started() -> bool:
    """Whether torchrun has started this process."""
    return all(name in os.environ for name in _VARIABLES)


def joined() -> Group:
    """This process's group; the first call waits for all ranks."""
    global _joined
    if _joined is None:
        _joined = Group()
    return _joined


def here() -> Group | None:
    """The group, if there is more than one rank."""
    return joined() if started() and int(os.environ["WORLD_SIZE"]) > 1 else None
