"""What every loader returns."""

from typing import Any, NamedTuple

from zobench.interface import Interface
from zobench.offload.model import Offload


class LoadedModel(NamedTuple):
    """A model in evaluation mode, its tokenizer if it reads text, and what it then gives back.

    The model is on the CPU unless the user placed it; one with an `hf_device_map` is spread over
    devices and must not be moved. capture: whether its forwards are to be captured on a GPU; None
    is where they can be. offload: places the tuned model with its layers in main memory; None for
    a model that is moved as a whole.
    """

    model: Any
    tokenizer: Any = None
    interface: Interface | None = None
    capture: bool | None = None
    offload: Offload | None = None
