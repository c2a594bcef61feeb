"""Steps inside the backward pass, where a gradient is complete."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor


class InBackward(torch.optim.Optimizer):
    """Moves each tensor inside the backward pass, as soon as its gradient is there, and drops it.

    One gradient at a time is in memory, apart from what the backward pass itself holds. The moves
    are those of `optimizer` after a whole backward pass, to the bit. There is no norm of the whole
    gradient: it cannot be clipped, and a batch is back-propagated at once.

    Args:
        named_parameters: (name, tensor) pairs.
        optimizer: Makes the optimizer of one tensor.
        lr: Learning rate; it lives in `param_groups`, where torch's schedulers find it.

    References:
        Lv et al. 2023, LOMO, arXiv 2306.09782: SGD in this way.
    """

    def __init__(
        self,
        named_parameters: Iterable[tuple[str, Tensor]],
        *,
        optimizer: Callable[..., torch.optim.Optimizer],
        lr: float,
    ) -> None:
        tensors = [tensor for _, tensor in named_parameters]
        super().__init__(tensors, {"lr": lr})
        self._own = {tensor: optimizer([tensor], lr=lr) for tensor in tensors}
        for tensor, own in self._own.items():
            self.state[tensor] = own.state[tensor]
            tensor.register_post_accumulate_grad_hook(self._move)

    def _move(self, tensor: Tensor) -> None:
        own = self._own[tensor]
        own.param_groups[0]["lr"] = self.param_groups[0]["lr"]
        own.step()
        tensor.grad = None

    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Nothing is left to do: `backward` has moved the weights.

        Args:
            closure: Is not called.
        """

    def state_dict(self) -> dict[str, Any]:
        """The rate, and each tensor's state in the order of the tensors."""
        return {
            "lr": self.param_groups[0]["lr"],
            "own": [own.state_dict() for own in self._own.values()],
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take back what `state_dict` returned."""
        self.param_groups[0]["lr"] = state_dict["lr"]
        for (tensor, own), saved in zip(self._own.items(), state_dict["own"], strict=True):
            own.load_state_dict(saved)
            self.state[tensor] = own.state[tensor]
