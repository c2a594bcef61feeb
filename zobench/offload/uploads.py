"""Uploads of blocks: while one block computes, the next one is copied to the device.

Three blocks have room on the device: the one that computes, the next one, and the one before, which
is copied back. On a GPU the copies run on two streams, one in each direction.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Protocol

import torch
from torch import Tensor

ROOM = 3  # blocks on the device at a time
_ALIGNED = 256  # bytes; kernels read vectors of up to 16

Pair = tuple[Tensor, Tensor]  # on the device, in main memory


def views_in_turn(blocks: Sequence[Sequence[Tensor]], device: torch.device) -> list[list[Tensor]]:
    """A tensor on the device for each tensor of the blocks.

    Blocks n, n + ROOM, n + 2 ROOM, ... have the same memory.
    """
    memory = [torch.empty(size, dtype=torch.uint8, device=device) for size in room_of(blocks)]
    found = []
    for number, block in enumerate(blocks):
        start, views = 0, []
        for tensor in block:
            part = memory[number % ROOM][start : start + tensor.nbytes]
            views.append(part.view(tensor.dtype).view(tensor.shape))
            start += _aligned(tensor)
        found.append(views)
    return found


def room_of(blocks: Sequence[Sequence[Tensor]]) -> list[int]:
    """Bytes of each memory: of the largest of the blocks that have it in turn."""
    sizes = [sum(map(_aligned, block)) for block in blocks]
    return [max(sizes[turn::ROOM], default=0) for turn in range(ROOM)]


def _aligned(tensor: Tensor) -> int:
    return -(-tensor.nbytes // _ALIGNED) * _ALIGNED


class Lanes(Protocol):
    """When copies run, and what waits for them. place: of a block's memory on the device."""

    def uploading(self, place: int) -> AbstractContextManager[None]:
        """Copies to the device, inside."""

    def arrived(self, place: int) -> None:
        """What is computed next reads what was uploaded."""

    def downloading(self, place: int) -> AbstractContextManager[None]:
        """Copies of what was computed so far, inside; after them the memory is free."""

    def finish(self) -> None:
        """Wait until main memory has what was downloaded."""


class Directly(Lanes):
    """Copies run at once: on a CPU."""

    def uploading(self, place: int) -> AbstractContextManager[None]:
        """Nothing to wait for."""
        del place
        return nullcontext()

    def arrived(self, place: int) -> None:
        """Nothing to wait for."""

    def downloading(self, place: int) -> AbstractContextManager[None]:
        """Nothing to wait for."""
        del place
        return nullcontext()

    def finish(self) -> None:
        """Nothing to wait for."""


class OnStreams(Lanes):
    """Copies run on streams of their own: on a GPU, with pinned memory.

    No test runs this class: it has not been on a GPU yet.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._up, self._down = torch.cuda.Stream(device), torch.cuda.Stream(device)
        self._ready = [torch.cuda.Event() for _ in range(ROOM)]
        self._free = [torch.cuda.Event() for _ in range(ROOM)]

    @contextmanager
    def uploading(self, place: int) -> Iterator[None]:
        """After what was downloaded from there; one that was never recorded does not wait."""
        self._up.wait_event(self._free[place])
        with torch.cuda.stream(self._up):
            yield
        self._ready[place].record(self._up)

    def arrived(self, place: int) -> None:
        """The stream that computes waits; the host does not."""
        torch.cuda.current_stream(self._device).wait_event(self._ready[place])

    @contextmanager
    def downloading(self, place: int) -> Iterator[None]:
        """After all that the computing stream has been given so far."""
        self._down.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._down):
            yield
        self._free[place].record(self._down)

    def finish(self) -> None:
        """The host waits."""
        self._down.synchronize()


class Uploads:
    """The blocks' tensors in main memory, and their copies on the device.

    Attributes:
        copies: Of each block, a copy of each of its tensors; with contents from `take` to
            `release`.
        more: Of each block, other tensors that are uploaded with it; empty for none.
        count: Uploads since the start.
    """

    def __init__(self, blocks: Sequence[Sequence[Tensor]], device: torch.device) -> None:
        self._blocks = blocks
        self.copies = views_in_turn(blocks, device)
        self.more: Sequence[Sequence[Pair]] = ()
        self.count = 0
        self._lanes: Lanes = OnStreams(device) if device.type == "cuda" else Directly()
        self._hidden: list[Tensor] = []  # what the block that is shown has in main memory
        self.forget()

    def forget(self) -> None:
        """Use no upload of before: the weights have changed since."""
        self._held: list[int | None] = [None] * ROOM

    def take(self, number: int) -> None:
        """Let the block's tensors be those on the device, and begin to upload the next block."""
        if number == 0:
            self.forget()
        if self._held[number % ROOM] != number:
            self._upload(number)
        if number + 1 < len(self._blocks):
            self._upload(number + 1)
        self._lanes.arrived(number % ROOM)
        self._hidden = [tensor.data for tensor in self._blocks[number]]
        for tensor, copy in zip(self._blocks[number], self.copies[number], strict=True):
            tensor.data = copy

    def hide(self, number: int) -> None:
        """Let the block's tensors be those in main memory again."""
        if self._hidden:
            for tensor, own in zip(self._blocks[number], self._hidden, strict=True):
                tensor.data = own
        self._hidden = []

    def release(self, number: int, changed: Iterable[Pair] = ()) -> None:
        """Give the memory of a hidden block to another one, after a copy of what has changed."""
        with self._lanes.downloading(number % ROOM):
            for there, here in changed:
                here.copy_(there, non_blocking=True)
        self._held[number % ROOM] = None

    def finish(self) -> None:
        """Wait until main memory has what was released."""
        self._lanes.finish()

    def _upload(self, number: int) -> None:
        own = zip(self.copies[number], self._blocks[number], strict=True)
        more = self.more[number] if self.more else ()
        with self._lanes.uploading(number % ROOM):
            for there, here in (*own, *more):
                there.copy_(here.data, non_blocking=True)
        self._held[number % ROOM] = number
        self.count += 1
