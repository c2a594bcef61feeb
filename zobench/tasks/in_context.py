"""In-context learning: examples of the training set, answered, before each prompt."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from zobench.errors import UserError
from zobench.tasks.example import Example

SEPARATOR = "\n\n"  # MeZO's, for every task


def check_demonstrations(count: int) -> None:
    """Raise UserError for a number of demonstrations below 0."""
    if count < 0:
        raise UserError(f"task.demonstrations={count}: must not be negative")


def with_demonstrations(
    asked: Sequence[Example], train: Sequence[Example], count: int, seed: int
) -> list[Example]:
    """Each example after `count` answered ones, drawn anew for each, as MeZO draws them.

    Depends on the seed and the example's place only. Raises UserError when train has fewer.
    """
    if count == 0:
        return list(asked)
    if count > len(train):
        raise UserError(f"task.demonstrations={count}: train has {len(train)} examples only")
    shown = []
    for place, example in enumerate(asked):
        drawn = np.random.default_rng([seed, place]).permutation(len(train))[:count]
        before = SEPARATOR.join(map(_answered, (train[i] for i in drawn)))
        shown.append(replace(example, prompt=before + SEPARATOR + example.prompt))
    return shown


def _answered(example: Example) -> str:
    return (example.prompt + example.choices[example.gold] + example.after).strip()
