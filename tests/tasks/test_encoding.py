"""Tokens of a prompt and its choices: where a choice begins, what is cut, what shares a row."""

import re
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from zobench.errors import UserError
from zobench.tasks.batch import Batch, collate
from zobench.tasks.encoding import Candidate, Encoded, encode
from zobench.tasks.example import Example

WORDS = ("the", "film", "was", "long", "It", "great", "terrible", "music", "a", "?", "quite")
PROMPT = st.lists(st.sampled_from(WORDS), min_size=1, max_size=8).map(" ".join)
ANY_TEXT = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12)
PAD = 1


def example(prompt: str, *choices: str, gold: int = 0) -> Example:
    """An example that stands on line 7 of train.tsv."""
    return Example(prompt, choices, gold, "train.tsv:7")


def encoded(*candidates: tuple[tuple[int, ...], tuple[int, ...]], gold: int = 0) -> Encoded:
    """An encoded example of (context, target) pairs."""
    return Encoded(tuple(Candidate(*pair) for pair in candidates), gold)


@given(prompt=PROMPT, choice=st.sampled_from((" great", " terrible", " a quite long film", " ?")))
def test_a_choice_holds_mezos_number_of_tokens(prompt: str, choice: str, tokenizer: Any) -> None:
    """Where nothing merges: tokens of prompt + choice less tokens of the prompt, and no other."""
    found = encode(example(prompt, choice), tokenizer, max_length=64, truncation="error")
    (candidate,) = found.candidates
    whole = tokenizer(prompt + choice)["input_ids"]
    count = len(whole) - len(tokenizer(prompt)["input_ids"])
    assert candidate == Candidate(tuple(whole[:-1]), tuple(whole[-count:]))


@given(prompt=ANY_TEXT, choice=ANY_TEXT)
def test_a_choice_is_never_empty(prompt: str, choice: str, tokenizer: Any) -> None:
    """Any two texts: at least one token is scored, each has a place to be predicted from."""
    found = encode(example(prompt, choice), tokenizer, max_length=200, truncation="error")
    (candidate,) = found.candidates
    whole = tokenizer(prompt + choice)["input_ids"]
    start = len(whole) - len(candidate.target)
    assert 1 <= len(candidate.target) <= len(candidate.context)
    assert candidate.target == tuple(whole[start:])
    assert candidate.context == tuple(whole[:-1])
    assert whole[:start] == tokenizer(prompt)["input_ids"][:start], "starts at or before the choice"


@pytest.mark.parametrize(
    ("prompt", "choice", "text"),
    [("It was gre", "at", " great"), ("The story is tr", "ue", " true")],
)
def test_a_merge_across_the_boundary_is_scored_whole(
    prompt: str, choice: str, text: str, tokenizer: Any
) -> None:
    """`gre` + `at` become one token, which is then what is scored; MeZO scored the whole row."""
    (candidate,) = encode(
        example(prompt, choice), tokenizer, max_length=64, truncation="error"
    ).candidates
    assert tokenizer(prompt + choice)["input_ids"][:-1] != tokenizer(prompt)["input_ids"]
    assert tokenizer.decode(candidate.target) == text


@pytest.mark.parametrize("choice", ["", " great"])
def test_a_choice_without_tokens_is_an_error(choice: str, tokenizer: Any) -> None:
    """An empty choice, and one that the tokenizer drops, whatever the prompt."""

    class Dropping:
        bos_token_id = tokenizer.bos_token_id

        def __call__(self, text: str, **options: bool) -> Any:
            return tokenizer(text.removesuffix(" great"), **options)

    with pytest.raises(UserError, match=re.escape(f"train.tsv:7: the choice {choice!r} has no")):
        encode(example("It was", choice), Dropping(), max_length=64, truncation="error")


@pytest.mark.parametrize(
    ("prompt", "choice"), [("", " great"), ("", " a great film"), (" gre", "at"), (" gre", "at a")]
)
def test_a_choice_after_nothing_is_an_error(
    prompt: str, choice: str, tokenizer_without_bos: Any
) -> None:
    """Its first token would be scored from padding."""
    with pytest.raises(UserError, match=r"train\.tsv:7: there is no token before the choice"):
        encode(example(prompt, choice), tokenizer_without_bos, max_length=64, truncation="error")


def test_after_a_beginning_of_sequence_token_a_prompt_may_be_empty(tokenizer: Any) -> None:
    """`<s>` alone is a context: the prior of a choice."""
    (candidate,) = encode(
        example("", " great"), tokenizer, max_length=64, truncation="error"
    ).candidates
    assert candidate.context == (tokenizer.bos_token_id,)


def test_a_long_prompt_is_an_error_that_names_the_row_and_the_remedy(tokenizer: Any) -> None:
    """Nothing is cut unless asked for; a context of exactly the limit fits."""
    long = example("It was " * 20, "great")
    length = len(tokenizer(long.prompt + "great")["input_ids"]) - 1
    assert encode(long, tokenizer, max_length=length, truncation="error").length == length
    with pytest.raises(UserError) as caught:
        encode(long, tokenizer, max_length=length - 1, truncation="error")
    message = str(caught.value)
    assert message.startswith(f"train.tsv:7: the prompt takes {length} tokens")
    assert str(length - 1) in message
    assert "task.truncation=left" in message


@given(
    prompt=st.lists(st.sampled_from(WORDS), min_size=30, max_size=40).map(" ".join),
    max_length=st.integers(8, 30),
)
def test_truncation_left_keeps_bos_and_the_end(
    prompt: str, max_length: int, tokenizer: Any, tokenizer_without_bos: Any
) -> None:
    """The target is untouched; context and the last token, which is not read, are the limit."""
    for tokenize, kept in ((tokenizer, 1), (tokenizer_without_bos, 0)):
        found = encode(
            example(prompt, " great", " a terrible film"),
            tokenize,
            max_length=max_length,
            truncation="left",
        )
        free = encode(
            example(prompt, " great", " a terrible film"),
            tokenize,
            max_length=10_000,
            truncation="error",
        )
        for cut, whole in zip(found.candidates, free.candidates, strict=True):
            assert cut.target == whole.target
            assert len(cut.context) == max_length - 1
            assert cut.context[:kept] == whole.context[:kept]
            assert cut.context[kept:] == whole.context[kept + 1 - max_length :]


def test_truncation_left_leaves_short_prompts_alone(tokenizer: Any) -> None:
    """A prompt that fits is the same under both settings."""
    short = example("It was", " great", " terrible")
    assert encode(short, tokenizer, max_length=10, truncation="left") == encode(
        short, tokenizer, max_length=10, truncation="error"
    )


def test_a_choice_longer_than_the_model_is_an_error(tokenizer: Any) -> None:
    """Cutting the prompt away cannot make room for it."""
    with pytest.raises(UserError, match=r"train\.tsv:7: a choice alone is longer"):
        encode(example("It", " great" * 9), tokenizer, max_length=8, truncation="left")


def test_single_token_choices_share_a_row(tokenizer: Any) -> None:
    """Two verdicts cost one forward row per example, cut or not; longer choices cost their own."""
    films = [
        example("the film was long . " * n + "It was", " great", " terrible") for n in (1, 2, 8)
    ]
    ids = [encode(e, tokenizer, max_length=32, truncation="left") for e in films]
    assert all(len(c.target) == 1 for e in ids for c in e.candidates)
    batch = collate(ids, PAD, 32)
    assert len(batch.input_ids) == len(films)
    assert batch.read_row.tolist() == [0, 1, 2]
    assert batch.picked.flatten().tolist() == [0, 0, 1, 1, 2, 2]
    mixed = encode(
        example("It was", " great", " terrible", " a great film"),
        tokenizer,
        max_length=32,
        truncation="error",
    )
    assert len(collate([mixed], PAD, 32).input_ids) == 2


def test_equal_prompts_of_two_examples_are_not_merged(tokenizer: Any) -> None:
    """Each example pays for its own row, so that cost does not depend on luck."""
    same = encode(
        example("It was", " great", " terrible"), tokenizer, max_length=32, truncation="error"
    )
    assert len(collate([same, same], PAD, 32).input_ids) == 2


def test_a_batch_is_laid_out_as_its_docstring_says() -> None:
    """Right padding to a multiple of 8, targets to the right, -1 where a choice is shorter."""
    two = encoded(((5, 6, 7), (8,)), ((5, 6, 7), (9,)), gold=1)
    three = encoded(((2, 3), (4,)), ((2, 3, 4), (4, 6)), ((2, 3), (5,)), gold=2)
    batch = collate([two, three], PAD, 64)
    assert batch.input_ids.tolist() == [
        [5, 6, 7] + [PAD] * 5,
        [2, 3] + [PAD] * 6,
        [2, 3, 4] + [PAD] * 5,
    ]
    assert batch.attention_mask.tolist() == [
        [1] * 3 + [0] * 5,
        [1] * 2 + [0] * 6,
        [1] * 3 + [0] * 5,
    ]
    places = list(zip(batch.read_row.tolist(), batch.read_at.tolist(), strict=True))
    assert places == [(0, 2), (1, 1), (2, 1), (2, 2)]
    assert batch.picked.tolist() == [[0, 0], [0, 0], [0, 1], [2, 3], [0, 1]]
    assert batch.example.tolist() == [0, 0, 1, 1, 1]
    assert batch.place.tolist() == [0, 1, 0, 1, 2]
    assert batch.target.tolist() == [[-1, 8], [-1, 9], [-1, 4], [4, 6], [-1, 5]]
    assert batch.gold.tolist() == [1, 2]
    assert batch.token_types is None
    assert batch.tokens == 3 + 2 + 3


def test_padding_never_exceeds_the_models_positions() -> None:
    """A model of 13 positions cannot read 16 tokens."""
    batch = collate([encoded((tuple(range(2, 15)), (4,)))], PAD, 13)
    assert batch.input_ids.shape == (1, 13)


@given(prompts=st.lists(PROMPT, min_size=1, max_size=5), several=st.booleans())
def test_tokens_count_what_the_model_reads(
    prompts: list[str], several: bool, tokenizer: Any
) -> None:
    """Attended positions: padding is free, and a shared row is counted once."""
    choices = (" great", " terrible", " a terrible film") if several else (" great", " terrible")
    ids = [
        encode(example(p, *choices), tokenizer, max_length=64, truncation="error") for p in prompts
    ]
    batch = collate(ids, PAD, 64)
    assert batch.tokens == int(batch.attention_mask.sum())
    once = [{c.context for c in e.candidates} for e in ids]
    assert batch.tokens == sum(len(context) for contexts in once for context in contexts)


def test_moving_a_batch_keeps_every_field() -> None:
    """On the CPU nothing is copied; elsewhere every tensor is moved (`meta` is a stand-in)."""
    batch = collate([encoded(((5, 6), (7,)), ((5, 6), (8,)))], PAD, 64)
    assert batch.to(torch.device("cpu")) is batch
    moved = batch.to(torch.device("meta"))
    assert isinstance(moved, Batch)
    assert moved.tokens == batch.tokens
    tensors = {k: v for k, v in vars(moved).items() if isinstance(v, torch.Tensor)}
    assert len(tensors) == 9
    assert all(v.device.type == "meta" for v in tensors.values())
