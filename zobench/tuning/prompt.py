"""Prompt tuning: trained embeddings before those of the text (Lester et al. 2021).

Ten of them by default, as in ZO-Bench (Zhang et al. 2024). Text positions begin after the prompt.
"""

from typing import Any, cast

from torch import nn

from zobench.errors import UserError
from zobench.tuning.adapter import with_adapter
from zobench.tuning.kinds import check_text, task_type
from zobench.tuning.prompt_calls import answer_for_the_text_alone
from zobench.tuning.token_types import keep_token_types


def prompt(model: nn.Module, *, seed: int, tokens: int = 10) -> nn.Module:
    """`tokens` virtual tokens in float32 that begin as random real ones; the rest is frozen.

    A classification head trains too.
    """
    check_text(model, "prompt")
    from peft import PromptTuningConfig, PromptTuningInit

    if tokens < 1:
        raise UserError(f"tuning.tokens={tokens}: give at least 1")
    config = PromptTuningConfig(
        task_type=task_type(model),
        num_virtual_tokens=tokens,
        prompt_tuning_init=PromptTuningInit.SAMPLE_VOCAB,
        token_dim=cast(Any, model)
        .get_input_embeddings()
        .embedding_dim,  # OPT-350m: not hidden_size
        num_layers=1,  # these two are not used, but looked for where some models have none
        num_attention_heads=1,
    )
    tuned = with_adapter(model, config, seed)
    keep_token_types(tuned)
    answer_for_the_text_alone(tuned)
    return cast(nn.Module, tuned)
