"""Placement and quantization of a model's weights: accelerate and bitsandbytes."""

from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

import torch

from zobench.errors import UserError


def placement(
    device_map: str | Mapping[str, Any] | None, quantization: str | None, dtype: torch.dtype
) -> dict[str, Any]:
    """The arguments of `from_pretrained` for both; empty for a whole model on the CPU."""
    options: dict[str, Any] = {}
    if device_map is not None:
        _needs("accelerate", f"model.device_map={device_map}")
        options["device_map"] = device_map if isinstance(device_map, str) else dict(device_map)
    if quantization is not None:
        options["quantization_config"] = _bits_and_bytes(quantization, dtype)
    return options


def check_placed(model: Any, device_map: Any) -> None:
    """Raise UserError if accelerate keeps weights away from the model until they are needed.

    It then holds empty tensors in their place, which can be perturbed without any effect.
    """
    away = [name for name, parameter in model.named_parameters() if parameter.is_meta]
    if away:
        raise UserError(
            f"model.device_map={device_map}: {away[0]} and {len(away) - 1} more would be offloaded "
            "and could not be tuned; use more devices or a smaller model.dtype"
        )


def _bits_and_bytes(quantization: str, dtype: torch.dtype) -> Any:
    """8 bits are LLM.int8(); 4 bits are computed with in `dtype`."""
    key = f"model.quantization={quantization}"
    if quantization not in ("8bit", "4bit"):
        raise UserError(f"{key}: choose null, 8bit or 4bit")
    _needs("bitsandbytes", key)
    _needs("accelerate", key)
    from transformers import BitsAndBytesConfig

    if quantization == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_compute_dtype=dtype)


def _needs(package: str, key: str) -> None:
    if find_spec(package) is None:
        raise UserError(f"{key}: needs {package}: pip install {package}")
