"""Prefix and prompt against what they stand for: real tokens before the text."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.tuning import models
from zobench.tuning.prefix import prefix, random_tokens, real_keys_and_values
from zobench.tuning.prompt import prompt


def behind(model: Any, ids: Tensor) -> Tensor:
    """The base model's logits of three whole rows behind the tokens `ids`, (1, tokens)."""
    with torch.no_grad():
        made = model(input_ids=torch.cat([ids.expand(3, -1), models.IDS], dim=1)).logits
    return made if made.dim() == 2 else made[:, ids.shape[1] :]


def plain(model: Any) -> Tensor:
    with torch.no_grad():
        ids = models.IDS
        made: Tensor = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
    return made


@pytest.mark.parametrize("kind", models.LANGUAGE)
def test_a_new_prefix_is_a_real_text(kind: str) -> None:
    """Its keys and values are those of random tokens, so the logits are those behind these tokens.

    An encoder's tokens would see the text as well, from the second layer on: one layer tells.
    """
    settings = {} if kind in models.DECODERS else {"num_hidden_layers": 1}
    base = models.LANGUAGE[kind](**settings)
    ids = random_tokens(base, 5, 0)
    expected = behind(base, ids)
    torch.testing.assert_close(plain(prefix(base, seed=0)), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", models.MODELS)
def test_the_prefix_keeps_peft_s_order(kind: str) -> None:
    """What peft hands to the layers are the keys and values that the cache had."""
    base = models.MODELS[kind]()
    real = real_keys_and_values(base, random_tokens(base, 5, 0))
    tuned: Any = prefix(base, seed=0)
    for layer, pair in zip(tuned.get_prompt(1).layers, real, strict=True):
        assert torch.equal(torch.cat([layer.keys, layer.values]), pair)
    assert all(pair.shape[:1] + pair.shape[2:3] == (2, 5) for pair in real)


@pytest.mark.parametrize("kind", [*models.LANGUAGE, "opt-classifier"])
def test_a_new_prompt_is_a_real_text(kind: str) -> None:
    """Its embeddings are those of ten tokens, the logits those behind these tokens."""
    base = models.MODELS[kind]()
    table = base.get_input_embeddings().weight
    tuned: Any = prompt(base, seed=0)
    made = tuned.prompt_encoder["default"].embedding.weight
    ids = (made[:, None] == table).all(-1).int().argmax(-1)
    assert torch.equal(table[ids], made) and len(set(ids.tolist())) > 5
    found = plain(tuned)
    expected = behind(models.MODELS[kind](), ids[None])
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", ["bert", "bert-classifier"])
def test_token_types_reach_the_text(kind: str) -> None:
    """With a prompt, and with a prefix, which is a text of type 0 before them."""
    types = (torch.arange(7) > 3).long().expand(3, -1)
    for tune in (prefix, prompt):
        tuned = tune(models.MODELS[kind](num_hidden_layers=1), seed=0)
        inputs = {"input_ids": models.IDS, "attention_mask": torch.ones_like(models.IDS)}
        assert not torch.equal(tuned(**inputs, token_type_ids=types).logits, plain(tuned))
        same = tuned(**inputs, token_type_ids=torch.zeros_like(types)).logits
        assert torch.equal(same, plain(tuned))
    base = models.MODELS["bert"](num_hidden_layers=1)
    text = torch.cat([random_tokens(base, 5, 0).expand(3, -1), models.IDS], dim=1)
    expected = base(text, token_type_ids=torch.nn.functional.pad(types, (5, 0))).logits[:, 5:]
    found = prefix(base, seed=0)(
        input_ids=models.IDS, attention_mask=torch.ones_like(models.IDS), token_type_ids=types
    ).logits
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_copies_of_a_tuned_model_are_on_their_own() -> None:
    """What one call leaves for its hooks is not another model's."""
    for kind in models.MODELS:
        tuned: Any = prompt(models.MODELS[kind](), seed=0)
        twin = copy.deepcopy(tuned)
        with torch.no_grad():
            tuned.prompt_encoder["default"].embedding.weight.zero_()
        torch.testing.assert_close(plain(twin), plain(prompt(models.MODELS[kind](), seed=0)))


def test_places_cut_at_the_head_are_left_alone() -> None:
    """Who lets the head see ten places only gets ten logits, however long the text is."""
    for kind in models.LANGUAGE:
        tuned: Any = prompt(models.MODELS[kind](), seed=0)
        head = tuned.get_output_embeddings()
        with torch.no_grad():
            whole = tuned(**models.batch()).logits
            handle = head.register_forward_pre_hook(
                lambda _, x: (x[0][:, 10:14].reshape(1, 12, -1),)
            )
            cut = tuned(**models.batch()).logits
            handle.remove()
        torch.testing.assert_close(cut.reshape(3, 4, -1), whole[:, :4])


def test_the_last_logits_may_be_asked_for_alone() -> None:
    """`logits_to_keep` passes through the wrapper."""
    for kind in models.DECODERS:
        tuned = prompt(models.MODELS[kind](), seed=0)
        kept = tuned(**models.batch(), logits_to_keep=2).logits
        torch.testing.assert_close(kept, tuned(**models.batch()).logits[:, -2:])
