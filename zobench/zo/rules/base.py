"""The interface of rules, and the pass that rules with elementwise state share."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence

import torch
from torch import Tensor

from zobench.zo.feedback import GRAD, DrawnTerm, Key
from zobench.zo.part import Part
from zobench.zo.passes.move import Move
from zobench.zo.space import Slot


class Rule(Part, ABC):
    """Moves one slot by the estimate g = sum of coefficient * z, restoring it in the same pass.

    Attributes:
        alike: Whether all matrices have the same scales, and all vectors too; then one move for
            each of the two kinds is enough.
        linear: Names of buffers that are linear in the estimate, as a momentum is.
    """

    needs = frozenset({GRAD})
    alike: bool = False  # matrices have the same scales, and so have vectors; one move for each
    linear: tuple[str, ...] = ()  # buffers that are linear in the estimate, as a momentum is

    def begin_step(self, grad: Mapping[Key, float], *, step: int) -> None:
        """Receive the step's coefficients before the slots are updated, for scalar statistics.

        Args:
            grad: Coefficient of each direction.
            step: Number of the step, from 0.
        """

    def past_keys(self) -> Iterable[Key]:
        """Directions of earlier steps that `update` needs again; requires PAST.

        Returns:
            Their keys.
        """
        return ()

    @abstractmethod
    def update(
        self, slot: Slot, drawn: Sequence[DrawnTerm], *, lr: float, step: int
    ) -> Move | None:
        """Plan the update of the slot's weights.

        The weights are displaced; adding `restore` times the direction of each term restores them.

        Args:
            slot: A trainable tensor.
            drawn: The step's directions on it, with `restore` and their coefficients.
            lr: Learning rate of the step.
            step: Number of the step, from 0.

        Returns:
            A move, which the engine applies for all slots in one pass; None where it is done
            already, or the slot does not move.
        """


def estimate_blocks(
    slot: Slot, drawn: Sequence[DrawnTerm]
) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """Go over a slot block by block, with clean weights and the estimate; each z is drawn once.

    Args:
        slot: A trainable tensor, displaced.
        drawn: The step's directions on it.

    Yields:
        Place in the flat tensor, weights to edit in place, and g; both float32 (float64 for float64
        weights).
    """
    for start, weights in slot.edit():
        estimate = torch.zeros_like(weights)
        for term in drawn:
            estimate.add_(_restored(term, start, weights), alpha=term.grad)
        yield slice(start, start + weights.numel()), weights, estimate


def touched_blocks(
    slot: Slot, drawn: Sequence[DrawnTerm]
) -> Iterator[tuple[slice, Tensor, Tensor, Tensor]]:
    """As `estimate_blocks`, and where some direction of the step is not 0.

    Args:
        slot: A trainable tensor, displaced.
        drawn: The step's directions on it.

    Yields:
        Place, weights, g, and a bool tensor of the block's size.
    """
    for start, weights in slot.edit():
        estimate = torch.zeros_like(weights)
        touched = torch.zeros_like(weights, dtype=torch.bool)
        for term in drawn:
            z = _restored(term, start, weights)
            touched.logical_or_(z)
            estimate.add_(z, alpha=term.grad)
        yield slice(start, start + weights.numel()), weights, estimate, touched


def _restored(term: DrawnTerm, start: int, weights: Tensor) -> Tensor:
    """The direction's block, after restoring the weights along it."""
    z = term.direction.draw(start, weights.numel(), weights.device).to(weights.dtype)
    weights.add_(z * term.restore)  # a product and a sum, as at the displacement
    return z
