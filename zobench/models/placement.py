"""Placement and quantization of a model's weights: accelerate, bitsandbytes and torchao."""

import tempfile
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

import torch

from zobench.errors import UserError
from zobench.models.messages import quiet

_EXTRA = "'zobench[memory]'"


def placement(
    device_map: str | Mapping[str, Any] | None, quantization: str | None, dtype: torch.dtype
) -> dict[str, Any]:
    """The arguments of `from_pretrained` for both; empty for a whole model on the CPU."""
    options: dict[str, Any] = {}
    if device_map is not None:
        _needs("accelerate", f"model.device_map={device_map}")
        options["device_map"] = device_map if isinstance(device_map, str) else dict(device_map)
    if quantization is not None:
        options["quantization_config"] = _quantized(quantization, dtype)
    return options


def with_options(model: Any, options: Mapping[str, Any]) -> Any:
    """The model as `from_pretrained` places and quantises it, by way of a temporary folder."""
    with tempfile.TemporaryDirectory(prefix="zobench-model-") as folder, quiet():
        model.save_pretrained(folder)
        return type(model).from_pretrained(folder, dtype=model.dtype, **options).eval()


def keep_layout(model: Any) -> None:
    """Let bitsandbytes leave 4-bit weights as they are.

    On a CPU with 16-bit instructions it repacks them in the first evaluation for a product that has
    no gradient; back-propagation later goes through it, and is silently wrong.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


def check_offload(offload: str | None, device_map: Any, quantization: str | None) -> None:
    """Raise UserError unless the layers can stay in main memory (`zobench.offload`)."""
    if offload not in (None, "cpu"):
        raise UserError(f"model.offload={offload}: choose cpu or null")
    if offload and (device_map is not None or quantization is not None):
        raise UserError(
            "model.offload=cpu: it places all weights by itself, as they are; leave"
            " model.device_map and model.quantization null"
        )


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


def _quantized(quantization: str, dtype: torch.dtype) -> Any:
    """int8: weights alone, a scale for each output. nf4: that of QLoRA, computed with in `dtype`.

    LLM.int8() of bitsandbytes is not offered: which columns of the activations it multiplies in 16
    bits depends on all rows of a batch.
    """
    key = f"model.quantization={quantization}"
    if quantization not in ("int8", "nf4"):
        raise UserError(f"{key}: choose null, int8 or nf4")
    _needs("accelerate", key)
    if quantization == "int8":
        _needs("torchao", key, _EXTRA)
        from torchao.quantization import Int8WeightOnlyConfig
        from transformers import TorchAoConfig

        return TorchAoConfig(Int8WeightOnlyConfig())
    _needs("bitsandbytes", key, _EXTRA)
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )


def _needs(package: str, key: str, source: str | None = None) -> None:
    if find_spec(package) is None:
        raise UserError(f"{key}: needs {package}: pip install {source or package}")
