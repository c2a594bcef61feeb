"""In-context learning: examples of the training set, answered, before each prompt.

In a chat they are turns of the user and the assistant.

The draw is MeZO's: `task.data_seed`, 0 in its code, seeds a number below 10,000 for each example by
its place; that number seeds a permutation of the training examples, of which the first `count` are
shown. Before a test example the draw is from all of the training split, as there. MeZO evaluates no
dev examples in context: as ours come from the training split, they get those drawn for training.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache

import numpy as np

from zobench.errors import UserError
from zobench.tasks.example import Example, Row, Turn

SEPARATOR = "\n\n"  # MeZO's, for every task
_SEEDS = 10_000


def check_demonstrations(count: int) -> None:
    """Raise UserError for a number of demonstrations below 0."""
    if count < 0:
        raise UserError(f"task.demonstrations={count}: must not be negative")


class Rendered:
    """Examples of all rows, each rendered when it is first shown."""

    def __init__(self, rows: Sequence[Row], render: Callable[[Row], Example]) -> None:
        self._rows = rows
        self._at = cache(lambda place: render(rows[place]))

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, place: int) -> Example:
        return self._at(place)


Examples = Sequence[Example] | Rendered


def with_demonstrations(
    examples: Sequence[Example], train: Examples, count: int, seed: int, *, turns: bool = False
) -> list[Example]:
    """Each example after `count` answered ones, drawn anew for each.

    Depends on the seed and the example's place only. turns: they come before the example as turns
    of a chat, not as text. Raises UserError when train has fewer.
    """
    if count == 0:
        return list(examples)
    if count > len(train):
        raise UserError(f"task.demonstrations={count}: train has {len(train)} examples only")
    shown = []
    seeds = np.random.RandomState(seed).randint(0, _SEEDS, len(examples))
    for example, own in zip(examples, seeds, strict=True):
        drawn = np.random.RandomState(own).permutation(len(train))[:count].tolist()
        if turns:
            shown.append(_after_turns([train[i] for i in drawn], example))
            continue
        before = SEPARATOR.join(_answered(train[i]) for i in drawn)
        shown.append(replace(example, prompt=before + SEPARATOR + example.prompt))
    return shown


def _answered(example: Example) -> str:
    return (example.prompt + example.choices[example.gold] + example.after).strip()


def _after_turns(demonstrations: Sequence[Example], example: Example) -> Example:
    """The example with these in its chat, after what the system says in its own."""
    given = [
        turn
        for one in demonstrations
        for turn in (*one.turns, Turn("assistant", one.choices[one.gold].strip()))
        if turn.role != "system"
    ]
    system = [turn for turn in example.before if turn.role == "system"]
    own = [turn for turn in example.before if turn.role != "system"]
    return replace(example, before=(*system, *given, *own))
