"""The room that an offloaded model takes on the device, from shapes alone."""

from collections.abc import Sequence

from torch import Tensor, nn

from zobench.offload.blocks import blocks_of, tensors_of
from zobench.offload.uploads import room_of
from zobench.zo.space import Slot


def room_on_device(model: nn.Module, slots: Sequence[Slot], points: int) -> int:
    """Bytes on the device while steps are taken, without activations.

    Args:
        model: All of it, of real or of fake tensors.
        slots: Those of an optimizer over it.
        points: Evaluated together.

    Returns:
        Layers in flight with their remainders; all other weights, and of those that train the
        remainder, a copy of both that is displaced, and the weights at each point.
    """
    own = {id(slot.parameter): slot for slot in slots}
    blocks = [tensors_of(block) for block in blocks_of(model)]
    inside = {id(tensor) for block in blocks for tensor in block}
    kept = [[_left(own.get(id(tensor))) for tensor in block] for block in blocks]
    lefts = [[left for left in block if left is not None] for block in kept]
    outside = [tensor for tensor in tensors_of(model) if id(tensor) not in inside]
    total = sum(room_of(blocks)) + sum(room_of(lefts)) + sum(t.nbytes for t in outside)
    for slot in (own[id(tensor)] for tensor in outside if id(tensor) in own):
        left = _left(slot)
        total += (points + 1) * slot.parameter.nbytes
        total += 0 if left is None else 2 * left.nbytes
    return total


def _left(slot: Slot | None) -> Tensor | None:
    return None if slot is None else slot.rounding.remainder
