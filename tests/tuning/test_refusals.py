"""What tuning refuses, and in which words."""

from typing import Any

import pytest
import torch

from tests.tuning import models
from zobench.errors import UserError
from zobench.tuning.bitfit import bitfit
from zobench.tuning.full import full
from zobench.tuning.head import head
from zobench.tuning.layers import layers
from zobench.tuning.lora import lora
from zobench.tuning.prefix import prefix
from zobench.tuning.prompt import prompt


def sentence(tune: Any, model: Any, **settings: Any) -> str:
    with pytest.raises(UserError) as caught:
        tune(model, **settings)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_models_without_text_are_tuned_in_full() -> None:
    """A linear model has nothing that the other ways of tuning could hold on to."""
    assert full(torch.nn.Linear(2, 1)).weight.requires_grad
    refusing: list[tuple[Any, dict[str, Any]]] = [
        (lora, {"seed": 0}),
        (prefix, {"seed": 0}),
        (prompt, {"seed": 0}),
        (head, {}),
        (bitfit, {}),
        (layers, {"patterns": ["weight"]}),
    ]
    for tune, settings in refusing:
        expected = f"tuning={tune.__name__}: this model does not read text; choose tuning=full"
        assert sentence(tune, torch.nn.Linear(2, 1), **settings) == expected


def test_a_model_without_biases_has_no_bitfit() -> None:
    """Llama and Qwen3."""
    for kind in ("llama", "qwen3"):
        assert "no biases" in sentence(bitfit, models.MODELS[kind]())


def test_patterns_have_to_match() -> None:
    """The sentence names the pattern and some parameters that there are."""
    opt = models.MODELS["opt"]()
    found = sentence(layers, opt, patterns=["fc1", "nowhere"])
    assert "tuning.patterns: 'nowhere' matches no parameter" in found
    assert "model.decoder.embed_tokens.weight" in found
    assert "is no regex" in sentence(layers, opt, patterns=["("])
    assert "give one or more" in sentence(layers, opt, patterns=[])


def test_targets_of_lora_have_to_be_known() -> None:
    """By peft for the architecture, or by name."""
    opt = models.MODELS["opt"]()
    assert "tuning.targets=['nowhere']: no such" in sentence(lora, opt, seed=0, targets=["nowhere"])
    opt.config.model_type = "novel"
    found = sentence(lora, opt, seed=0)
    assert found.startswith(
        "tuning.targets: peft knows none for novel; name modules, such as model"
    )
    assert lora(opt, seed=0, targets=["fc1"]) is not None


def test_sizes_are_at_least_one() -> None:
    """Rank, prefix and prompt."""
    opt = models.MODELS["opt"]()
    assert "tuning.r=0" in sentence(lora, opt, seed=0, r=0)
    for tune in (prefix, prompt):
        assert "tuning.tokens=0" in sentence(tune, opt, seed=0, tokens=0)


def test_without_a_cache_there_is_no_prefix() -> None:
    """DistilBERT takes no keys and values from outside."""
    sizes = {"dim": 16, "n_layers": 1, "n_heads": 2, "hidden_dim": 24, "vocab_size": 60}
    for model in ("DistilBertForMaskedLM", "DistilBertForSequenceClassification"):
        distilbert = models.build(model, "DistilBertConfig", **sizes)
        assert "distilbert has no uniform key/value cache" in sentence(prefix, distilbert, seed=0)
