"""Random weights in an exact architecture, without a download.

Memory and time depend on shapes and dtypes alone, so such a model measures as the pretrained one.
"""

from collections.abc import Mapping
from typing import Any

import torch

from zobench.errors import UserError
from zobench.interface import Interface
from zobench.models.heads import auto_class
from zobench.models.messages import quiet
from zobench.seeded import seeded


def configured(architecture: Mapping[str, Any]) -> Any:
    """The transformers config that `model_type` and dimensions describe.

    Raises UserError for a kind that transformers does not know, for a dimension that this kind does
    not have, which transformers itself would let pass, and for values that it refuses.
    """
    from transformers import CONFIG_MAPPING, AutoConfig

    kind = str(architecture.get("model_type"))
    if kind not in CONFIG_MAPPING:
        raise UserError(
            f"model.architecture.model_type={kind}: transformers has no such kind of model; "
            "opt, llama, gpt2 and roberta are some that it has"
        )
    usual: Any = AutoConfig.for_model(kind)
    for name in architecture:
        if not hasattr(usual, name):
            raise UserError(f"model.architecture.{name}: {type(usual).__name__} has no such value")
    try:
        return AutoConfig.for_model(**architecture)
    except Exception as error:  # validation raises types of several libraries
        reason = f"{type(usual).__name__}: {' '.join(str(error).split())[:160]}"
        raise UserError(f"model.architecture: refused ({reason})") from error


def with_random_weights(
    config: Any,
    interface: Interface,
    *,
    dtype: torch.dtype,
    seed: int,
    device: str | None,
    attention: str | None,
) -> Any:
    """The model of a config, its weights drawn from `seed`, each once, in `dtype`, on `device`.

    Draws of a GPU are not those of a CPU. device: null is the CPU, auto the first GPU where there
    is one. Decoders that name no padding get token 0, as their classification heads must skip some.
    """
    place = _device(device)
    options = {} if attention is None else {"attn_implementation": attention}
    try:
        with quiet(), seeded(seed), place:
            model = auto_class(interface).from_config(config, dtype=dtype, **options)
    except (ValueError, ImportError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
        key = "architecture" if attention is None else f"attention={attention}"
        raise UserError(f"model.{key}: refused ({reason})") from error
    for part in (model.config, model.config.get_text_config()):
        if part.pad_token_id is None:
            part.pad_token_id = 0
    return model.eval()


def _device(name: str | None) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        return torch.device(name or "cpu")
    except RuntimeError:
        raise UserError(f"model.weights_device={name}: choose auto, cpu, cuda or cuda:N") from None
