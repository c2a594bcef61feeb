"""The interface of tasks: batches of a training set, their loss, and splits to evaluate."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from zobench.interface import Interface
from zobench.tasks.evaluation import Forwards, MapFn


class Loaded(Protocol):
    """A model and, if it reads text, its tokenizer and interface."""

    @property
    def model(self) -> Any: ...

    @property
    def tokenizer(self) -> Any: ...

    @property
    def interface(self) -> Interface | None: ...


class AnyBatch(Protocol):
    """The input of the problem's loss; `tokens` is its cost for a language model."""

    @property
    def tokens(self) -> int: ...


class Answer(NamedTuple):
    """The prediction for one example, the right answer, and its share of the accuracy or metric.

    A choice is given by its number among the example's choices, a text as it was generated.
    """

    answer: str
    gold: str
    score: float


class Problem(Protocol):
    """A task prepared for one model on one device."""

    sizes: Mapping[str, int]  # examples in train, dev and test

    @property
    def differentiable(self) -> bool:
        """Whether the loss has a gradient, which first-order optimizers need."""

    def batch(self, indices: Sequence[int]) -> AnyBatch:
        """The training examples with these indices."""

    def loss(self, model: Any, batch: Any) -> Tensor:
        """Mean loss of a batch, a differentiable scalar of float32 or more."""

    def weight(self, batch: Any) -> float:
        """The number of examples, or tokens, over which the loss of a batch is a mean."""

    def evaluate(
        self, model: Any, split: str, batch_size: int, answers: list[Answer] | None = None
    ) -> dict[str, float]:
        """`loss` and the task's metrics over all of `dev` or `test`.

        answers: filled with one per example, in the data's order, by a task that has examples.
        """


@runtime_checkable
class Noted(Protocol):
    """A problem that has notes on its rows."""

    notes: Sequence[str]  # a line each, for stderr, meta.json and the table


@runtime_checkable
class ByLength(Protocol):
    """A problem whose training examples are of different lengths."""

    def length(self, index: int) -> int:
        """Tokens of the longest row that this training example puts into a batch."""


@runtime_checkable
class Evaluates(Protocol):
    """A problem whose evaluations may compute their forwards in another way."""

    def evaluated_by(self, forwards: Forwards) -> Any:
        """The problem with evaluations whose forwards are computed in this way."""


class Divisible(AnyBatch, Protocol):
    """A batch that can be cut into its examples."""

    @property
    def examples(self) -> int: ...

    def cut(self, first: int, last: int) -> Any:
        """Those from `first` to `last` - 1; the model's outputs for them are as in the whole."""


@runtime_checkable
class ByExample(Protocol):
    """A problem whose loss is a function of the model's outputs for each example.

    Its batches are Divisible, and those that it evaluates do not depend on each other.
    """

    def outputs(self, model: Any, batch: Any) -> Tensor:
        """The model's outputs that the loss needs, one row per example; differentiable."""

    def loss_of(self, outputs: Tensor, batch: Any) -> Tensor:
        """The mean loss of a batch by the outputs for all of its examples, in order."""

    def evaluate(
        self,
        model: Any,
        split: str,
        batch_size: int,
        answers: list[Answer] | None = None,
        map_fn: MapFn = map,
    ) -> dict[str, float]:
        """As a Problem's; map_fn: maps a function over the batches as `map` does, over ranks."""


class Task(Protocol):
    """What `conf/task/` describes."""

    def prepare(self, loaded: Loaded, device: torch.device) -> Problem:
        """Load and encode the data for this model; raises UserError where that is impossible."""


@dataclass(frozen=True)
class Indices:
    """A batch of problems without text: the numbers of its training examples."""

    indices: tuple[int, ...]
    tokens: int = 0


class ByIndices:
    """A problem without text, whose batches are Indices."""

    differentiable = True

    def batch(self, indices: Sequence[int]) -> Indices:
        return Indices(tuple(indices))

    def weight(self, batch: Indices) -> int:
        return len(batch.indices)
