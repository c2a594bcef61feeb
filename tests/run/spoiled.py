"""A logger that spoils its run: of some batches, always the same, the loss is NaN."""

import math
from typing import Any

from tests.run.killer import Killer
from zobench.run.closure import CountedLoss

part = CountedLoss.part


class Spoiled(Killer):
    """every: of so many batches one is bad, by its tokens; 1 is all. May also kill, as Killer."""

    def __init__(self, at: int = 10**9, by: str = "SIGKILL", every: int = 3) -> None:
        super().__init__(at, by)
        self.every = every

    def begin(self, *arguments: Any) -> None:
        super().begin(*arguments)
        spoil(self.every)


def spoil(every: int) -> None:
    """From now on; `part` is what the loss was before."""

    def spoiled(self: CountedLoss, batch: Any) -> Any:
        return part(self, batch) * (math.nan if batch.tokens % every == 0 else 1.0)

    CountedLoss.part = spoiled  # type: ignore[method-assign]
