"""Forward-mode differentiation of a loss along one direction, through the weights in place."""

import warnings
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn.attention import SDPBackend, sdpa_kernel

from zobench.zo.feedback import Key
from zobench.zo.samplers.base import Sampler
from zobench.zo.space import Slot


def loss_and_slope(
    loss: Callable[[], Tensor | float], slots: Sequence[Slot], sampler: Sampler, key: Key
) -> tuple[float, float]:
    """(L(w), <grad L(w), z(key)>) in one pass with tangents: about two forwards' arithmetic.

    Holds z for every slot, in the weights' dtype, and a tangent of every activation while it runs;
    no weight changes. Raises ValueError when the loss is a number or does not depend on the slots.
    """
    with forward_ad.dual_level(), sdpa_kernel(SDPBackend.MATH):  # the only kernel with tangents
        for slot in slots:
            direction = sampler.direction(slot, key)
            if direction is None:
                continue
            weights = slot.parameter
            z = direction.draw(0, slot.numel, weights.device).to(weights.dtype)
            weights.add_(_dual(torch.zeros_like(weights), z.view_as(weights)))
        value = loss()
        if not isinstance(value, Tensor):
            raise ValueError("forward-mode differentiation needs a closure that returns a tensor")
        primal, tangent = forward_ad.unpack_dual(value)
        if tangent is None:
            raise ValueError(
                "forward-mode differentiation: the loss does not depend on the weights"
            )
        return float(primal), float(tangent)


def _dual(primal: Tensor, tangent: Tensor) -> Tensor:
    """A dual tensor; the first one makes torch 2.13 compile decompositions the deprecated way."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return forward_ad.make_dual(primal, tangent)
