"""Prefix-tuning: trained keys and values before those of the text (Li & Liang 2021).

Without reparametrisation and initialised from real keys and values, as MeZO (Malladi et al. 2023,
appendix on prefix-tuning) found necessary for stability. Text positions begin after the prefix.
"""

from typing import Any, cast

import torch
from torch import Tensor, nn

from zobench.errors import UserError
from zobench.seeded import seeded
from zobench.tuning.adapter import with_adapter
from zobench.tuning.kinds import check_text, task_type
from zobench.tuning.token_types import keep_token_types


def prefix(model: nn.Module, *, seed: int, tokens: int = 5) -> nn.Module:
    """`tokens` key and value vectors per layer in float32; the rest is frozen.

    They begin as those of random tokens of the vocabulary, passed through the model as a text. A
    classification head trains too. Raises UserError for an architecture without a key/value cache.
    """
    check_text(model, "prefix")
    from peft import PrefixTuningConfig

    if tokens < 1:
        raise UserError(f"tuning.tokens={tokens}: give at least 1")
    pairs = real_keys_and_values(model, random_tokens(model, tokens, seed))
    layers = cast(Any, model).config.get_text_config().num_hidden_layers
    if len(pairs) != layers or len({pair.shape for pair in pairs}) > 1:
        kind = cast(Any, model).config.model_type
        raise UserError(f"tuning=prefix: {kind} has no uniform key/value cache; try tuning=prompt")
    _, heads, _, width = pairs[0].shape
    config = PrefixTuningConfig(
        task_type=task_type(model),
        num_virtual_tokens=tokens,
        num_layers=len(pairs),
        num_attention_heads=heads,
        token_dim=heads * width,
    )
    tuned = with_adapter(model, config, seed)
    weight = tuned.prompt_encoder["default"].embedding.weight
    with torch.no_grad():  # peft's order: token, then layer, then key or value, then head
        weight.copy_(torch.stack(pairs).permute(3, 0, 1, 2, 4).reshape(tokens, -1))
    keep_token_types(tuned)
    return cast(nn.Module, tuned)


def random_tokens(model: nn.Module, count: int, seed: int) -> Tensor:
    """`count` random ids of the vocabulary, (1, count)."""
    embedding = cast(Any, model).get_input_embeddings()
    with seeded(seed):
        ids = torch.randint(embedding.num_embeddings, (1, count))
    return ids.to(embedding.weight.device)


@torch.no_grad()
def real_keys_and_values(model: nn.Module, ids: Tensor) -> list[Tensor]:
    """For each layer what a text's tokens leave in the cache, (key or value, heads, tokens, width).

    The cache is handed in, because encoders make none of their own. Empty if none is used, or one
    of another form.
    """
    from transformers import DynamicCache

    cache: Any = DynamicCache()
    mask = torch.ones_like(ids)
    try:
        cast(Any, model).base_model(input_ids=ids, attention_mask=mask, past_key_values=cache)
        layers = [layer for layer in cache.layers if layer.is_initialized]
        return [torch.cat([layer.keys, layer.values]) for layer in layers]
    except (torch.OutOfMemoryError, MemoryError):
        raise
    except Exception:  # no such argument, states of another form, keys wider than values
        return []
