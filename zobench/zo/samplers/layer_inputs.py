"""What linear layers and embeddings are called with, seen without hooks or names of modules."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode


class LayerInputs(TorchFunctionMode):
    """While active, reports the calls of linear layers and embeddings by their weights.

    Args:
        seen: Called with a weight, the (..., d_in) inputs that it is multiplied with, and whether
            the weight's first dimension is that of the inputs.
        looked_up: Called with a weight that is used as an embedding.
    """

    def __init__(
        self, seen: Callable[[Tensor, Tensor, bool], None], looked_up: Callable[[Tensor], None]
    ) -> None:
        super().__init__()
        self._seen, self._looked_up = seen, looked_up

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is functional.linear:
            self._seen(args[1] if len(args) > 1 else kwargs["weight"], args[0], False)
        elif func is torch.addmm and len(args) == 3:  # GPT-2's Conv1D: bias + x W
            self._seen(args[2], args[1], True)
        elif func is functional.embedding:
            self._looked_up(args[1] if len(args) > 1 else kwargs["weight"])
        return func(*args, **kwargs)
