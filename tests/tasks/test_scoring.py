"""Scores of a batch against the plain loop: one row, one candidate, no padding."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from zobench.tasks.batch import Batch, collate
from zobench.tasks.encoding import Encoded, encode
from zobench.tasks.example import Example
from zobench.tasks.losses import ChoiceLoss
from zobench.tasks.scoring import language_scores

SINGLE = (" great", " terrible")
SEVERAL = (" great", " a terrible film", " quite long , and then it was over")
TEXTS = ("It was", "the film was long . It was", "we saw it on monday , and " * 2 + "It was", "a")


def assert_close(scores: Tensor, expected: Tensor) -> None:
    """Equal to 1e-5, whatever the size of the scores."""
    torch.testing.assert_close(scores, expected, rtol=0.0, atol=1e-5)


def llama(vocabulary: int) -> Any:
    """Rotary positions, which a shift of all positions does not change."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=64,
        initializer_range=0.3,
        bos_token_id=0,
        pad_token_id=1,
        eos_token_id=2,
    )
    return LlamaForCausalLM(config).eval()


def gpt2(vocabulary: int) -> Any:
    """Learnt positions that count padding unless told otherwise."""
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        vocab_size=vocabulary,
        n_embd=32,
        n_layer=2,
        n_head=2,
        n_positions=64,
        initializer_range=0.3,
        bos_token_id=0,
        eos_token_id=2,
    )
    return GPT2LMHeadModel(config).eval()


@pytest.fixture(scope="module", params=["opt", "llama", "gpt2"])
def model(request: pytest.FixtureRequest, tiny_opt: Any, tokenizer: Any) -> Any:
    """A tiny random model of each family."""
    if request.param == "opt":
        return tiny_opt
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return {"llama": llama, "gpt2": gpt2}[request.param](len(tokenizer))


@pytest.fixture(scope="module")
def encode_all(tokenizer: Any) -> Callable[..., list[Encoded]]:
    """`encode_all((prompt, choices), ...)`: gold is the last choice."""

    def encode_all(*examples: tuple[str, tuple[str, ...]]) -> list[Encoded]:
        return [
            encode(
                Example(prompt, choices, len(choices) - 1, "here"),
                tokenizer,
                max_length=64,
                truncation="error",
            )
            for prompt, choices in examples
        ]

    return encode_all


def choice_loss(model: Any, batch: Batch) -> Tensor:
    """Cross-entropy over the choices of a language model."""
    return ChoiceLoss().of(language_scores(model, batch), batch)


def batch_of(examples: list[Encoded]) -> Batch:
    """A batch as the runner makes it."""
    return collate(examples, 1, 64)


@torch.no_grad()
def by_the_loop(model: Any, tokenizer: Any, prompt: str, choice: str) -> float:
    """MeZO's rule from the text itself: mean log p of the tokens that the choice adds."""
    ids = tokenizer(prompt + choice)["input_ids"]
    count = len(ids) - len(tokenizer(prompt)["input_ids"])
    log_p = model(input_ids=torch.tensor([ids])).logits[0].float().log_softmax(-1)
    picked = [float(log_p[i - 1, ids[i]]) for i in range(len(ids) - count, len(ids))]
    return sum(picked) / count


@torch.no_grad()
@pytest.mark.parametrize("choices", [SINGLE, SEVERAL])
def test_scores_equal_the_unpadded_loop(
    choices: tuple[str, ...],
    model: Any,
    tokenizer: Any,
    encode_all: Callable[..., list[Encoded]],
) -> None:
    """Shared rows, padding and kept logits change nothing."""
    expected = [[by_the_loop(model, tokenizer, text, c) for c in choices] for text in TEXTS]
    scores = language_scores(model, batch_of(encode_all(*((text, choices) for text in TEXTS))))
    assert scores.dtype == torch.float32
    assert_close(scores, torch.tensor(expected))
    assert float(scores.std()) > 0.1, "the model is too flat for this test to see anything"


@torch.no_grad()
def test_examples_may_differ_in_their_number_of_choices(
    model: Any, tokenizer: Any, encode_all: Callable[..., list[Encoded]]
) -> None:
    """A missing candidate scores -inf, is never predicted, and leaves the others alone."""
    examples = [(TEXTS[0], SINGLE), (TEXTS[1], SEVERAL), (TEXTS[2], (" yes", " a", " Maybe no"))]
    scores = language_scores(model, batch_of(encode_all(*examples)))
    for row, (text, choices) in zip(scores, examples, strict=True):
        expected = [by_the_loop(model, tokenizer, text, choice) for choice in choices]
        assert_close(row[: len(choices)], torch.tensor(expected))
        assert row[len(choices) :].eq(-math.inf).all()


@torch.no_grad()
def test_a_score_does_not_depend_on_the_company_it_keeps(
    model: Any, encode_all: Callable[..., list[Encoded]]
) -> None:
    """Alone, beside longer prompts, in another order, or padded with another token: the same."""
    examples = encode_all(*((text, SEVERAL) for text in TEXTS))
    together = language_scores(model, batch_of(examples))
    alone = torch.cat([language_scores(model, batch_of([e])) for e in examples])
    assert_close(together, alone)
    backwards = language_scores(model, batch_of(examples[::-1]))
    assert_close(together, backwards.flip(0))
    assert_close(together, language_scores(model, collate(examples, 9, 64)))


@torch.no_grad()
def test_a_prompt_cut_to_the_models_length_is_scored_like_one_of_that_length(
    model: Any, tokenizer: Any
) -> None:
    """The longest context that a model takes, up to its last position."""
    text = "we saw it on monday , and greater things came later . " * 8 + "It was"
    example = Example(text, SEVERAL, 0, "here")
    cut = encode(example, tokenizer, max_length=64, truncation="left")
    scores = language_scores(model, batch_of([cut]))[0]
    for score, candidate in zip(scores, cut.candidates, strict=True):
        logits = model(input_ids=torch.tensor([candidate.context])).logits[0].float()
        log_p = logits.log_softmax(-1)[-len(candidate.target) :]
        expected = log_p.gather(1, torch.tensor(candidate.target)[:, None]).mean()
        assert_close(score, expected)


def test_the_loss_is_cross_entropy_over_normalised_log_likelihoods(
    model: Any, tokenizer: Any, encode_all: Callable[..., list[Encoded]]
) -> None:
    """Mean over the examples, by hand from the plain loop, with 2 and with 3 choices."""
    examples = [(TEXTS[0], SINGLE), (TEXTS[1], SEVERAL), (TEXTS[3], SINGLE)]
    expected = 0.0
    for text, choices in examples:
        scores = [by_the_loop(model, tokenizer, text, choice) for choice in choices]
        expected += math.log(sum(map(math.exp, scores))) - scores[-1]
    loss = choice_loss(model, batch_of(encode_all(*examples)))
    assert loss.shape == ()
    assert float(loss.detach()) == pytest.approx(expected / len(examples), abs=1e-5)


def test_the_loss_can_be_differentiated_with_missing_candidates(
    model: Any, encode_all: Callable[..., list[Encoded]]
) -> None:
    """First-order baselines train on the same loss; -inf must not become NaN in a gradient."""
    loss = choice_loss(model, batch_of(encode_all((TEXTS[0], SINGLE), (TEXTS[1], SEVERAL))))
    gradients = torch.autograd.grad(loss, [p for p in model.parameters() if p.requires_grad])
    assert all(gradient.isfinite().all() for gradient in gradients)
    assert any(gradient.abs().max() > 0 for gradient in gradients)


@torch.no_grad()
def test_half_precision_logits_are_scored_in_float32(
    tiny_opt: Any, encode_all: Callable[..., list[Encoded]]
) -> None:
    """The soft-max and the loss of a bfloat16 model are float32 (ZO losses need the digits)."""
    import copy

    half = copy.deepcopy(tiny_opt).to(torch.bfloat16)
    batch = batch_of(encode_all((TEXTS[1], SEVERAL)))
    scores = language_scores(half, batch)
    assert scores.dtype == torch.float32
    assert choice_loss(half, batch).dtype == torch.float32
    assert not torch.equal(scores, scores.to(torch.bfloat16).float())


@torch.no_grad()
def test_only_positions_that_predict_a_choice_get_logits(
    model: Any, encode_all: Callable[..., list[Encoded]]
) -> None:
    """The head of any architecture is applied to the places that are read, each once."""
    seen: list[Tensor] = []
    handle = model.get_output_embeddings().register_forward_hook(lambda _m, _i, o: seen.append(o))
    try:
        batch = batch_of(encode_all((TEXTS[2], SEVERAL), (TEXTS[0], SINGLE)))
        language_scores(model, batch)
    finally:
        handle.remove()
    assert [tuple(out.shape[:2]) for out in seen] == [(1, len(batch.read_row))]
    assert len(batch.read_row) == int((batch.target >= 0).sum()) - 1  # SINGLE shares one place
    assert not model.get_output_embeddings()._forward_pre_hooks


class Bare(torch.nn.Module):
    """A model without a head of its own to be cut: log p depends on the token."""

    def forward(self, input_ids: Tensor, attention_mask: Tensor, use_cache: bool) -> Any:
        from types import SimpleNamespace

        assert not use_cache
        assert attention_mask.shape == input_ids.shape
        return SimpleNamespace(logits=torch.nn.functional.one_hot(input_ids, 400).float())


@torch.no_grad()
def test_models_that_return_all_logits_are_scored_too(
    tokenizer: Any, encode_all: Callable[..., list[Encoded]]
) -> None:
    """A custom architecture gives every position; those that are read are picked out."""
    repeating = (" great great great", " a film film", " terrible")
    scores = language_scores(Bare(), batch_of(encode_all((TEXTS[1], repeating))))
    expected = []
    for choice in repeating:
        ids = tokenizer(TEXTS[1] + choice)["input_ids"]
        count = len(ids) - len(tokenizer(TEXTS[1])["input_ids"])
        same = sum(ids[i] == ids[i - 1] for i in range(len(ids) - count, len(ids)))
        expected.append(same / count - math.log(399 + math.e))
    assert_close(scores[0], torch.tensor(expected))
