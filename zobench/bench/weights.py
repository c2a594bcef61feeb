"""One model under the steps of many rows: each gets the weights that its state belongs to."""

from collections.abc import Sequence

import torch
from torch import Tensor


class Weights:
    """The trained tensors, and a copy in main memory for each row that keeps state between steps.

    State may be tied to the very weights it was left with, as remainders of rounded updates are.
    The weights' storage stays where it was when this was made.
    """

    def __init__(self, trainable: Sequence[tuple[str, Tensor]]) -> None:
        self._homes = [(parameter, parameter.data) for _, parameter in trainable]
        self._own: dict[str, list[Tensor]] = {}

    def bring(self, row: str) -> None:
        """Before a step of the row: copy back the weights of its last step, if there was one."""
        if row in self._own:
            for (_, home), values in zip(self._homes, self._own[row], strict=True):
                home.copy_(values)

    def leave(self, row: str, *, keep: bool) -> None:
        """After a step of the row: move replaced weights back to their storage; keep a copy."""
        for parameter, home in self._homes:
            if parameter.data_ptr() != home.data_ptr():
                home.copy_(parameter.data)
                parameter.data = home
        if keep:
            if row not in self._own:
                self._own[row] = [torch.empty_like(home, device="cpu") for _, home in self._homes]
            for (_, home), values in zip(self._homes, self._own[row], strict=True):
                values.copy_(home)
