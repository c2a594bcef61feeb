"""Evaluating over a split."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor


class _Sized(Protocol):
    @property
    def length(self) -> int: ...


S = TypeVar("S", bound=_Sized)
T = TypeVar("T")

# As `map`: the function's value for each batch, in order; ranks may share the work.
MapFn = Callable[[Callable[[Any], Any], Iterable[Any]], Iterable[Any]]

Forward = Callable[[Any, Any], Tensor]  # of a model and a batch whose fields are tensors


class Forwards(Protocol):
    """How the forwards of an evaluation are computed."""

    @property
    def records(self) -> bool:
        """Whether forwards may be recorded, to be computed again without Python."""

    def __call__(self, forward: Forward, model: Any, batch: Any) -> Tensor:
        """`forward(model, batch)`, up to rounding."""

    def recorded(self, body: Callable[[], Tensor]) -> Callable[[], Tensor] | None:
        """What computes `body` again, on the tensors that it read; None where nothing can.

        `body` may run any number of times meanwhile.
        """

    def launched_for(self, reason: str) -> None:
        """Say why some of the forwards are not recorded."""


class Launched:
    """Every forward is launched when it is needed."""

    records = False

    def __call__(self, forward: Forward, model: Any, batch: Any) -> Tensor:
        return forward(model, batch)

    def recorded(self, body: Callable[[], Tensor]) -> None:
        """None: nothing is recorded."""

    def launched_for(self, reason: str) -> None:
        """Nothing: it is what was asked for."""


LAUNCHED = Launched()


@contextmanager
def evaluating(model: Any) -> Iterator[None]:
    """No graph and no dropout inside; the model's mode is restored at the end."""
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(was_training)


def by_length(examples: Sequence[_Sized]) -> list[int]:
    """Numbers of the examples, the shortest first."""
    return sorted(range(len(examples)), key=lambda number: examples[number].length)


def in_data_order(examples: Sequence[_Sized], found: Sequence[T]) -> list[T]:
    """Values that are listed by length, the shortest first, in the examples' own order."""
    placed = dict(zip(by_length(examples), found, strict=True))
    return [placed[number] for number in range(len(examples))]


def in_batches(examples: Sequence[S], batch_size: int) -> Iterator[list[S]]:
    """Batches in order of length, the shortest first."""
    ordered = [examples[number] for number in by_length(examples)]
    for start in range(0, len(ordered), batch_size):
        yield ordered[start : start + batch_size]
