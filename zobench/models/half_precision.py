"""Matrix products of 16-bit tensors on a CPU that has no instructions for them.

There torch multiplies 16-bit matrices element by element, some six times slower than in float32.
Converted to float32, multiplied and rounded once, the result is what such instructions give, whose
sums are in float32, too, but for their order.
"""

import functools
import threading
from collections.abc import Callable, Mapping, Sequence
from types import MethodType
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

_PRODUCTS = {
    functional.linear,
    torch.addmm,
    torch.baddbmm,
    torch.bmm,
    torch.matmul,
    Tensor.matmul,
    Tensor.__matmul__,
}


class ProductsInFloat32(TorchFunctionMode):
    """Within it, products of 16-bit matrices on the CPU are computed in float32 and rounded.

    Without a graph the weight of a product is widened into memory that the next one takes over: new
    memory of that size would come from the system each time, page by page.
    """

    def __init__(self) -> None:
        super().__init__()
        self._memory = _Memory()

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        del types
        named = kwargs or {}
        if function not in _PRODUCTS or not _half_on_cpu(args[0]):
            return function(*args, **named)
        weight = None if torch.is_grad_enabled() else _largest_parameter([*args, *named.values()])

        def widened(value: Any) -> Any:
            if value is weight and weight is not None:
                return self._memory.widened(weight)
            return value.float() if _half_on_cpu(value) else value

        wide = [widened(value) for value in args]
        product = function(*wide, **{key: widened(value) for key, value in named.items()})
        return product.to(args[0].dtype)


class _Memory(threading.local):
    """Room for one tensor in float32, in each thread."""

    def __init__(self) -> None:
        self.room = torch.empty(0)

    def widened(self, weight: Tensor) -> Tensor:
        if self.room.numel() < weight.numel():
            with torch.inference_mode(False):
                self.room = torch.empty(weight.numel())
        return self.room[: weight.numel()].view(weight.shape).copy_(weight)


def _half_on_cpu(value: Any) -> bool:
    """Quantised weights are not: they become as wide as what they are multiplied with."""
    half = (torch.bfloat16, torch.float16)
    whole = isinstance(value, Tensor) and not is_traceable_wrapper_subclass(value)
    return whole and value.dtype in half and value.device.type == "cpu"


def _largest_parameter(values: Sequence[Any]) -> Tensor | None:
    own = [v for v in values if isinstance(v, torch.nn.Parameter) and _half_on_cpu(v)]
    return max(own, key=Tensor.numel, default=None)


def has_instructions(dtype: torch.dtype) -> bool:
    """Whether this CPU multiplies matrices of that type as fast as float32's."""
    if dtype not in (torch.bfloat16, torch.float16):
        return True
    if not torch.backends.mkldnn.is_available():  # as in builds for macOS
        return False
    onednn = torch.ops.mkldnn
    if dtype == torch.bfloat16:
        return bool(onednn._is_mkldnn_bf16_supported())
    return bool(onednn._is_mkldnn_fp16_supported())


def multiply_in_float32(model: Any) -> None:
    """Make all forwards of the model compute their products on the CPU that way.

    Not of one that accelerate spreads over devices, which replaces `forward` itself.
    """
    if "forward" in vars(model):
        return
    of_class, products = type(model).forward, ProductsInFloat32()

    @functools.wraps(of_class)  # transformers and peft read the names of its arguments
    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        with products:
            return of_class(self, *args, **kwargs)

    model.forward = MethodType(forward, model)  # of a copy in the model's copy
