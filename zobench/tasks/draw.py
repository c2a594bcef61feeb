"""Which rows a task uses: seeded subsets, as MeZO draws them."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from zobench.errors import UserError
from zobench.tasks.example import Row, Splits


class Draw:
    """Subsets of given sizes under a seed of the data's own.

    MeZO's protocol: one permutation of train, its first train + dev entries, the last dev of those
    for dev; the first `test` of a permutation of the test rows under the same seed. A data set
    with a dev split of its own keeps all of train for training. shuffled=False takes the first
    rows as they stand (LOREN's released code).
    """

    def __init__(self, sizes: Mapping[str, int], seed: int, *, shuffled: bool = True) -> None:
        whole = all(isinstance(size, int) and size >= 1 for size in sizes.values())
        if set(sizes) != {"train", "dev", "test"} or not whole:
            raise UserError("task.sizes: give train, dev and test, each a whole number from 1 up")
        if not 0 <= seed < 2**32:
            raise UserError(f"task.data_seed={seed}: choose one from 0 to 2**32 - 1")
        self.sizes, self.seed, self.shuffled = sizes, seed, shuffled

    def balanced(
        self, rows: Sequence[Row], label: Callable[[Row], int], shares: Sequence[float]
    ) -> list[Row]:
        """As many rows as have the classes in these shares, drawn by the data seed.

        label: the class of a row. shares: of each class; they need not sum to one.
        """
        of: list[list[Row]] = [[] for _ in shares]
        for row in self._ordered(rows):
            of[label(row)].append(row)
        most = min(len(some) / share for some, share in zip(of, shares, strict=True) if share)
        kept = [some[: int(most * share)] for some, share in zip(of, shares, strict=True)]
        return [row for some in kept for row in some]

    def __call__(self, pools: Mapping[str, Sequence[Row]]) -> Splits[Row]:
        """The three splits; raises UserError where nothing would be left to train on."""
        if not {"train", "test"} <= pools.keys():
            raise UserError("task.source.splits: say which split is train and which is test")
        if empty := [split for split, rows in pools.items() if not rows]:
            raise UserError(f"task.source: the {empty[0]} split has no rows")
        train = self._ordered(pools["train"])
        if "dev" in pools:
            dev = self._ordered(pools["dev"])[: self.sizes["dev"]]
            train = train[: self.sizes["train"]]
        else:
            drawn = train[: self.sizes["train"] + self.sizes["dev"]]
            cut = len(drawn) - self.sizes["dev"]
            if cut < 1:
                raise UserError(
                    f"task.sizes.dev={self.sizes['dev']} leaves no training rows of {len(train)}"
                )
            train, dev = drawn[:cut], drawn[cut:]
        return Splits(train, dev, self._ordered(pools["test"])[: self.sizes["test"]])

    def _ordered(self, rows: Sequence[Row]) -> list[Row]:
        """The rows in the order of MeZO's `numpy.random.permutation` under this seed."""
        if not self.shuffled:
            return list(rows)
        order = np.random.RandomState(self.seed).permutation(len(rows))
        return [rows[i] for i in order]
