"""What a task hands to everything downstream: rendered examples in three splits."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple


class Row(NamedTuple):
    """One raw row and where it came from, such as `train.tsv:17`, for messages."""

    values: dict[str, Any]
    where: str


@dataclass(frozen=True)
class Example:
    """A prompt, the candidate continuations and the index of the right one."""

    prompt: str
    choices: tuple[str, ...]
    gold: int
    where: str


@dataclass(frozen=True)
class Splits:
    """Train teaches, dev selects, test only reports."""

    train: Sequence[Example]
    dev: Sequence[Example]
    test: Sequence[Example]
