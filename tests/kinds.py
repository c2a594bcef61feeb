"""Small random models of the kinds of language models that there are, large weights in them."""

from typing import Any

import torch

VOCABULARY, PAD, BOS, EOS, MASK = 120, 1, 0, 2, 4
_SIZES: dict[str, Any] = dict.fromkeys(
    ("hidden_size", "d_model", "n_embd", "emb_dim", "embedding_size", "attention_hidden_size"), 48
)
_SIZES |= dict.fromkeys(
    ("intermediate_size", "ffn_dim", "decoder_ffn_dim", "encoder_ffn_dim", "d_inner", "dff"), 96
)
_SIZES |= dict.fromkeys(
    ("num_hidden_layers", "n_layers", "n_layer", "num_layers", "decoder_layers", "encoder_layers"),
    2,
)
_SIZES |= dict.fromkeys(
    ("num_attention_heads", "n_head", "n_heads", "decoder_attention_heads", "num_heads"), 4
)
_SIZES |= dict.fromkeys(
    ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", "context_length"), 128
)
_SIZES |= {"num_key_value_heads": 2, "head_dim": 12, "word_embed_proj_dim": 48, "rotary_dim": 8}
_SIZES |= {"sliding_window": 16, "window_size": 16, "type_vocab_size": 2, "state_size": 8}
_SIZES |= {"vocab_size": VOCABULARY, "bos_token_id": BOS, "eos_token_id": EOS, "pad_token_id": PAD}
_SIZES |= dict.fromkeys(("num_local_experts", "num_experts", "n_routed_experts"), 4)
_SIZES |= {"moe_intermediate_size": 32, "num_experts_per_tok": 2, "expert_intermediate_size": 32}

_ROPE = {"rope_theta": 10000.0, "rope_type": "longrope", "original_max_position_embeddings": 24}
_LINEAR = {"linear_num_value_heads": 4, "linear_num_key_heads": 2, "linear_conv_kernel_dim": 4}
_LINEAR |= {"linear_key_head_dim": 8, "linear_value_head_dim": 8}
_OWN: dict[str, dict[str, Any]] = {  # None leaves a value out
    "esm": {"token_dropout": False, "position_embedding_type": "absolute"},
    "deepseek_v2": {"q_lora_rank": 16, "kv_lora_rank": 16, "qk_nope_head_dim": 8}
    | {"qk_rope_head_dim": 8, "v_head_dim": 12, "head_dim": 8, "num_key_value_heads": 4}
    | {"n_group": 1, "topk_group": 1, "first_k_dense_replace": 2},
    "falcon": {
        "alibi": True,
        "new_decoder_architecture": False,
        "num_kv_heads": 4,
        "head_dim": None,
    },
    "gpt_neo": {"attention_types": [[["global", "local"], 1]], "num_layers": 2},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1, "expert_layer_offset": 5}
    | {"expert_layer_period": 6},
    "lfm2": {"layer_types": ["conv", "full_attention"]},
    "phi3": {
        "rope_parameters": _ROPE
        | {"short_factor": [1.0] * 6, "long_factor": [4.0] * 6, "factor": 128 / 24}
    },
    "qwen3_next": _LINEAR | {"layer_types": ["linear_attention", "full_attention"]},
    "recurrent_gemma": {"block_types": ["recurrent", "attention"], "attention_window_size": 16}
    | {"lru_width": 48},
    "funnel": {"block_sizes": [1, 1], "d_head": 12, "num_hidden_layers": None},
    "longformer": {"attention_window": 16},
    "xlnet": {"max_position_embeddings": None},
}


def config_of(kind: str, **more: Any) -> Any:
    """A config of two layers of width 48, without dropout; `more` beats what it says."""
    from transformers import CONFIG_MAPPING

    made = CONFIG_MAPPING[kind]
    usual = made()
    known = {name: value for name, value in _SIZES.items() if hasattr(usual, name)}
    drops = [name for name in vars(usual) if name.endswith(("dropout", "pdrop", "dropout_prob"))]
    chosen = known | dict.fromkeys(drops, 0.0) | _OWN.get(kind, {}) | more
    return made(**{name: value for name, value in chosen.items() if value is not None})


def model_of(kind: str, head: str, **more: Any) -> Any:
    """A model with random weights, the same each time.

    head: `CausalLM`, `MaskedLM` or `SequenceClassification`.
    """
    import transformers

    config = config_of(kind, **more)
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        model = getattr(transformers, f"AutoModelFor{head}").from_config(config)
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1 and 0 < parameter.std() < 0.1:
                parameter.mul_(4.0)  # what a slip changes shows
            elif name.endswith("bias"):
                parameter.normal_(std=0.1)
    return model.eval()
