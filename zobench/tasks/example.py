"""The rendered examples of a task, in three splits."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar

E = TypeVar("E")
F = TypeVar("F")


class Row(NamedTuple):
    """One raw row and where it came from, such as `train.tsv:17`, for messages."""

    values: dict[str, Any]
    where: str


class Turn(NamedTuple):
    """One message of a chat; role: system, user or assistant, or another that templates know."""

    role: str
    content: str


@dataclass(frozen=True)
class Example:
    """A prompt, the texts that may continue it and the index of the one to teach.

    after: what follows the choice, for a model that fills in masks. right: indices of all choices
    that count as correct; `gold` alone where it is empty. neutral: the content-free prompt that
    calibration compares with. before: what a chat holds before the prompt, which only
    `zobench.tasks.chat` shows.
    """

    prompt: str
    choices: tuple[str, ...]
    gold: int
    where: str
    after: str = ""
    right: tuple[int, ...] = ()
    neutral: str = ""
    before: tuple[Turn, ...] = ()

    @property
    def turns(self) -> tuple[Turn, ...]:
        """The conversation up to the answer."""
        return (*self.before, Turn("user", self.prompt))


@dataclass(frozen=True)
class Splits(Generic[E]):
    """Train teaches, dev selects, test only reports."""

    train: Sequence[E]
    dev: Sequence[E]
    test: Sequence[E]

    def each(self, function: Callable[[E], F]) -> "Splits[F]":
        """The splits of the function's values."""
        return Splits(*([function(item) for item in some] for some in vars(self).values()))
