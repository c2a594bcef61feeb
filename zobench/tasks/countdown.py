"""The source of Countdown: numbers and a target that an expression over them reaches."""

import random
from collections.abc import Mapping
from typing import Any

from zobench.errors import UserError
from zobench.tasks.example import Row

_TRIES = 100  # draws in a row that only repeat known problems


class Countdown:
    """Generated problems, equal on every machine; no two have the same numbers and target.

    Args:
        sizes: Rows per split.
        seed: Of the rows.
        count: Numbers of a problem, 2 or more.
        largest: The largest number; the smallest is 1.

    Raises:
        UserError: `count` or `largest` is out of range.
    """

    def __init__(self, *, sizes: Mapping[str, int], seed: int, count: int, largest: int) -> None:
        if count < 2:
            raise UserError(f"task.source.count={count}: give at least 2 numbers")
        if largest < 2:
            raise UserError(f"task.source.largest={largest}: must be at least 2")
        self.sizes, self.seed, self.count, self.largest = sizes, seed, count, largest

    def rows(self, data_dir: str | None) -> dict[str, list[Row]]:
        """Rows `{"numbers": list[int], "target": int}`.

        Raises UserError when a folder is given, since none would be read, and for more rows than
        there are problems.
        """
        if data_dir is not None:
            raise UserError(f"task.data_dir={data_dir}: Countdown's rows are made, not read")
        rng, known = random.Random(f"countdown/{self.seed}"), set[tuple[Any, ...]]()
        made: dict[str, list[Row]] = {}
        for split in ("test", "dev", "train"):  # a larger train leaves the others as they are
            made[split] = [
                Row(self._new(rng, known), f"countdown {split} row {number}")
                for number in range(self.sizes[split])
            ]
        return made

    def _new(self, rng: random.Random, known: set[tuple[Any, ...]]) -> dict[str, Any]:
        """A problem that is not among the known ones, to which it is added."""
        for _ in range(_TRIES):
            numbers, target = self._problem(rng)
            problem = (*sorted(numbers), target)
            if problem not in known:
                known.add(problem)
                return {"numbers": numbers, "target": target}
        raise UserError(
            f"task.sizes: there are not many more than {len(known)} problems of {self.count}"
            f" numbers up to {self.largest}; give smaller sizes or a larger task.source.largest"
        )

    def _problem(self, rng: random.Random) -> tuple[list[int], int]:
        """Numbers in random order, and what random operations on all of them give, above 0."""
        numbers = [rng.randint(1, self.largest) for _ in range(self.count)]
        value = numbers[0]
        for number in numbers[1:]:
            results = [value + number, value * number]
            results += [abs(value - number)] if value != number else []
            results += [value // number] if value % number == 0 else []
            value = rng.choice(results)
        rng.shuffle(numbers)
        return numbers, value
