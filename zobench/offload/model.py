"""A model whose layers are on the device only while they compute."""

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from zobench.errors import UserError
from zobench.offload.blocks import blocks_of, tensors_of
from zobench.offload.uploads import Uploads
from zobench.offload.visit import Visit


class Offload:
    """Keeps the weights of a model's layers in main memory, and uploads a layer when it computes.

    All other weights (embeddings, last norm, head) stay on the device. Wherever the model computes
    without gradients, such as in evaluations, it can be called as usual.

    Args:
        model: As it was loaded; a tuning may add to its layers later, before `place`.

    Attributes:
        blocks: The layers.
        outside: The model's other modules.
        visit: The evaluation under way that pauses at each layer; None lets layers compute at once.

    Raises:
        UserError: The model has no layers that can be uploaded one by one.
    """

    uploads: Uploads
    device: torch.device
    outside: list[nn.Module]

    def __init__(self, model: nn.Module) -> None:
        self.blocks = blocks_of(model)
        self.visit: Visit[Any] | None = None

    def place(self, model: nn.Module, device: torch.device) -> None:
        """Place the tuned model's tensors, and let its layers be uploaded from now on.

        Args:
            model: The model; it must not be moved afterwards.
            device: Where it computes. On a CPU uploads are copies within main memory.
        """
        tensors = [tensors_of(block) for block in self.blocks]
        inside = {id(tensor) for block in tensors for tensor in block}
        for tensor in tensors_of(model):
            tensor.data = (
                in_main_memory(tensor.data, device)
                if id(tensor) in inside
                else (tensor.data.to(device))
            )
        layers = {id(module) for block in self.blocks for module in block.modules()}
        self.outside = [module for module in model.modules() if id(module) not in layers]
        self.device, self.uploads = device, Uploads(tensors, device)
        for number, block in enumerate(self.blocks):
            block.register_forward_pre_hook(partial(self._before, number))
            block.register_forward_hook(partial(self._after, number), always_call=True)

    def _before(self, number: int, *_: Any) -> None:
        if self.visit is not None:
            self.visit.pause(number)
            return
        if torch.is_grad_enabled():
            raise UserError(
                "model.offload=cpu: layers in main memory are evaluated without gradients only;"
                " set it to null"
            )
        self.uploads.take(number)

    def _after(self, number: int, *_: Any) -> None:
        if self.visit is None:
            self.uploads.hide(number)
            self.uploads.release(number)


def in_main_memory(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor on the CPU, pinned where it is uploaded to a GPU: copies run while it computes."""
    here = tensor.cpu()
    return here.pin_memory() if device.type == "cuda" else here
