"""The drift of 16-bit weights that are perturbed in place without remainders.

Every displacement rounds the stored weights, so that they move without an update, and updates
smaller than their spacing are lost (docs/numerics.md). A sample of the weights is kept in float32
and gets the same updates along the same directions, for comparison.
"""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from zobench.zo.feedback import GRAD, MOVE, DrawnTerm
from zobench.zo.space import Slot

_BLOCKS, _BLOCK = 16, 1024  # so many elements of so many places, at even distances


class _Sample(NamedTuple):
    slot: Slot
    start: int
    first: Tensor  # float64 copies: of the weights at the beginning,
    meant: Tensor  # and of where plain descent would be

    @property
    def now(self) -> Tensor:
        return _weights(self.slot, self.start, self.first.numel())


class DriftMeter:
    """Follows slots under plain descent: w <- w - lr * sum of coefficient * z, or along MOVE.

    On the CPU, where noise is the same: a step on a GPU does not wait for it, nor launch anything.
    """

    def __init__(self, slots: Sequence[Slot]) -> None:
        total = sum(slot.numel for slot in slots)
        self._samples: list[_Sample] = []
        places = [(2 * i + 1) * total // (2 * _BLOCKS) for i in range(_BLOCKS)]
        before = 0
        for slot in slots:
            own = {(p - before) // _BLOCK for p in places if before <= p < before + slot.numel}
            for start in sorted(block * _BLOCK for block in own):
                weights = _weights(slot, start, _BLOCK)
                self._samples.append(_Sample(slot, start, weights, weights.clone()))
            before += slot.numel
        self._update = 0.0  # root mean square of the last one

    @property
    def slots(self) -> Iterable[Slot]:
        """Those with a sample."""
        return {sample.slot.id: sample.slot for sample in self._samples}.values()

    def follow(self, slot: Slot, drawn: Sequence[DrawnTerm], lr: float) -> None:
        """Do to the slot's samples what the update does to its weights."""
        for sample in self._samples:
            if sample.slot is not slot:
                continue
            added = torch.zeros_like(sample.meant)
            for term in drawn:
                z = term.direction.draw(sample.start, added.numel(), added.device)
                given = term.coefficients
                added.add_(z.to(added), alpha=given.get(MOVE, 0.0) - lr * given.get(GRAD, 0.0))
            sample.meant.add_(added)
            self._update = float(added.square().mean().sqrt())

    def findings(self) -> dict[str, float]:
        """What to log.

        drift/relative: |w - meant| / |meant|. drift/cosine: between the change of the weights and
        the change that the updates meant. drift/update_in_spacings: the last update's size over
        half the spacing of a weight of median size; below 1 most of it is lost to rounding.
        """
        now = torch.cat([sample.now for sample in self._samples])
        first = torch.cat([sample.first for sample in self._samples])
        meant = torch.cat([sample.meant for sample in self._samples])
        gone, sent = now - first, meant - first
        lengths = float(gone.norm() * sent.norm())
        median = now.abs().median().to(self._samples[0].slot.parameter.dtype)
        spacing = float(torch.nextafter(median, median + torch.ones_like(median)) - median)
        return {
            "drift/relative": float((now - meant).norm() / meant.norm()),
            **({"drift/cosine": float(gone @ sent) / lengths} if lengths else {}),
            "drift/update_in_spacings": self._update / (0.5 * spacing),
        }

    def state_dict(self) -> dict[str, Any]:
        """The sample's first and meant values; where it is taken follows from the slots."""
        pairs = [(sample.first.clone(), sample.meant.clone()) for sample in self._samples]
        return {"samples": pairs, "update": self._update}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for sample, (first, meant) in zip(self._samples, state["samples"], strict=True):
            sample.first.copy_(first)
            sample.meant.copy_(meant)
        self._update = state["update"]


def _weights(slot: Slot, start: int, count: int) -> Tensor:
    """Some of the slot's weights, remainders included, in float64 on the CPU."""
    return slot.rounding.widen(slot.flat, slice(start, start + count)).cpu().double()
