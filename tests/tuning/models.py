"""Small random models of every kind that tuning meets; large weights make any slip visible."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch

VOCABULARY, PAD = 60, 1
SHARED: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "pad_token_id": PAD,
    "bos_token_id": 0,
    "eos_token_id": 2,
    "initializer_range": 0.3,
}
SIZES: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
}
ENCODER = SHARED | SIZES | {"intermediate_size": 24, "type_vocab_size": 2}
GROUPED = SHARED | SIZES | {"intermediate_size": 24, "num_key_value_heads": 2}
OPT = SHARED | SIZES | {"ffn_dim": 24, "init_std": 0.3, "word_embed_proj_dim": 8}


def build(model: str, config: str, **settings: Any) -> Any:
    import transformers

    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = getattr(transformers, model)(getattr(transformers, config)(**settings))
        with torch.no_grad():
            for name, parameter in made.named_parameters():  # biases are zero at first
                if name.endswith("bias"):
                    parameter.normal_(std=0.1)
    return made.eval()


LANGUAGE: dict[str, Callable[..., Any]] = {
    "opt": partial(build, "OPTForCausalLM", "OPTConfig", **OPT),
    "llama": partial(build, "LlamaForCausalLM", "LlamaConfig", **GROUPED),
    "qwen3": partial(
        build, "Qwen3ForCausalLM", "Qwen3Config", **GROUPED, head_dim=6, tie_word_embeddings=True
    ),
    "gpt2": partial(
        build,
        "GPT2LMHeadModel",
        "GPT2Config",
        **SHARED,
        n_embd=16,
        n_layer=2,
        n_head=4,
        n_positions=64,
    ),
    "roberta": partial(build, "RobertaForMaskedLM", "RobertaConfig", **ENCODER),
    "bert": partial(build, "BertForMaskedLM", "BertConfig", **ENCODER),
}
CLASSIFIERS: dict[str, Callable[..., Any]] = {
    "bert-classifier": partial(
        build, "BertForSequenceClassification", "BertConfig", **ENCODER, num_labels=3
    ),
    "roberta-classifier": partial(
        build, "RobertaForSequenceClassification", "RobertaConfig", **ENCODER, num_labels=3
    ),
    "opt-classifier": partial(
        build, "OPTForSequenceClassification", "OPTConfig", **OPT, num_labels=3
    ),
}
MODELS = LANGUAGE | CLASSIFIERS
DECODERS = ("opt", "llama", "qwen3", "gpt2")

IDS = torch.randint(3, VOCABULARY, (3, 7), generator=torch.Generator().manual_seed(0))
LENGTHS = (7, 4, 6)


def batch(padding: int = 0) -> dict[str, Any]:
    """Three rows of different lengths, padded on the right to the longest and `padding` more."""
    ids = torch.nn.functional.pad(IDS, (0, padding), value=PAD).clone()
    mask = torch.zeros_like(ids)
    for row, length in enumerate(LENGTHS):
        ids[row, length:] = PAD
        mask[row, :length] = 1
    return {"input_ids": ids, "attention_mask": mask, "use_cache": False}


def logits_of(model: Any, padding: int = 0) -> torch.Tensor:
    """Of the real tokens, one row after the other; of a classifier all."""
    made = model(**batch(padding)).logits
    if made.dim() == 2:
        return made
    return torch.cat([row[:length] for row, length in zip(made, LENGTHS, strict=True)])
