"""Small random models of the architectures that papers tune, made on the spot."""

from typing import Any

import torch

VOCABULARY = 400
POSITIONS = 128
KINDS = ("opt", "llama", "qwen3", "gpt2", "roberta", "bert")
MASKED = ("roberta", "bert")


def small_config(kind: str) -> Any:
    """Two layers of width 32 without dropout; the special tokens are those of `byte_level_bpe`."""
    import transformers

    tokens: dict[str, Any] = {
        "vocab_size": VOCABULARY,
        "bos_token_id": 0,
        "pad_token_id": 1,
        "eos_token_id": 2,
    }
    size: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    positions: dict[str, Any] = {"max_position_embeddings": POSITIONS}
    own: dict[str, Any]
    if kind == "opt":
        own = {"word_embed_proj_dim": 32, "ffn_dim": 64, "dropout": 0.0}
        return transformers.OPTConfig(**tokens, **size, **positions, **own)
    if kind in ("llama", "qwen3"):
        make: Any = transformers.LlamaConfig if kind == "llama" else transformers.Qwen3Config
        own = {"intermediate_size": 64, "num_key_value_heads": 1, "head_dim": 16}
        return make(**tokens, **size, **positions, **own, tie_word_embeddings=kind == "qwen3")
    if kind == "gpt2":
        own = {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": POSITIONS}
        return transformers.GPT2Config(**tokens, **own, embd_pdrop=0, attn_pdrop=0, resid_pdrop=0)
    own = {"intermediate_size": 64, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    if kind == "roberta":  # its positions begin after the padding token's
        positions = {"max_position_embeddings": POSITIONS + 2}
        return transformers.RobertaConfig(**tokens, **size, **positions, **own)
    return transformers.BertConfig(**tokens, **size, **positions, **own)


def small_sizes(layers: int) -> dict[str, int]:
    """What makes an OPT of width 16 of `model.architecture`."""
    return {
        "vocab_size": 96,
        "max_position_embeddings": 32,
        "hidden_size": 16,
        "word_embed_proj_dim": 16,
        "ffn_dim": 32,
        "num_hidden_layers": layers,
        "num_attention_heads": 2,
    }


def small_model(kind: str) -> Any:
    """A language model of `small_config(kind)` in evaluation mode, the same each time."""
    from transformers import AutoModelForCausalLM, AutoModelForMaskedLM

    make = AutoModelForMaskedLM if kind in MASKED else AutoModelForCausalLM
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return make.from_config(small_config(kind)).eval()
