"""LoRA: a low-rank update of the query and value projections (Hu et al. 2021)."""

from collections.abc import Sequence
from typing import Any, cast

from torch import nn

from zobench.errors import UserError
from zobench.tuning.adapter import with_adapter
from zobench.tuning.kinds import check_text, some, task_type


def lora(
    model: nn.Module,
    *,
    seed: int,
    r: int = 8,
    alpha: float = 16,
    dropout: float = 0.0,
    targets: Sequence[str] | None = None,
) -> nn.Module:
    """W + (alpha / r) B A with A Kaiming-uniform and B zero, in float32; the rest is frozen.

    targets: names of the modules that get one; null: peft's choice, mostly queries and values
    (GPT-2's are one matrix with the keys). No bias is added or trained; a classification head is.
    Raises UserError for targets that are not there, or unknown to peft for the architecture.
    """
    check_text(model, "lora")
    from peft import LoraConfig
    from peft.tuners.tuners_utils import check_target_module_exists
    from peft.utils import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING
    from transformers.pytorch_utils import Conv1D

    if r < 1:
        raise UserError(f"tuning.r={r}: the rank must be at least 1")
    kind = cast(Any, model).config.model_type
    chosen = targets or TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING.get(kind)
    modules = {name: part for name, part in model.named_modules() if not list(part.children())}
    if not chosen:
        raise UserError(
            f"tuning.targets: peft knows none for {kind}; name modules, such as {some(modules)}"
        )
    config = LoraConfig(
        task_type=task_type(model),
        r=r,
        lora_alpha=cast(int, alpha),
        lora_dropout=dropout,
        bias="none",
        target_modules=chosen if isinstance(chosen, str) else list(chosen),
    )
    hit = [part for name, part in modules.items() if check_target_module_exists(config, name)]
    if not hit:
        raise UserError(f"tuning.targets={chosen}: no such module; there is {some(modules)}")
    config.fan_in_fan_out = any(isinstance(part, Conv1D) for part in hit)  # GPT-2's W is transposed
    return cast(nn.Module, with_adapter(model, config, seed))
