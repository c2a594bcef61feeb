"""The synthetic review language: what its rows and its pretraining text promise."""

import random

import pytest
from transformers import AutoTokenizer

from zobench.paths import ASSETS_DIR
from zobench.tasks.synthetic_reviews import (
    NEGATIVE,
    NEGATORS,
    POSITIVE,
    pretraining_lines,
    rows,
)

SPLITS = ("train", "dev", "test")
ADJECTIVES = {name: {*POSITIVE[name], *NEGATIVE[name]} for name in ("shown", "task", "fresh")}


def polarities(sentence: str) -> set[int]:
    """The polarity of every adjective of `sentence`, flipped where a negator stands before it."""
    words = sentence.split()
    found = set()
    for before, word in zip(["", *words], words, strict=False):
        for label, lexicon in ((0, NEGATIVE), (1, POSITIVE)):
            if any(word in adjectives for adjectives in lexicon.values()):
                found.add(1 - label if before in NEGATORS else label)
    return found


def sentences(split: str, count: int, seed: int) -> set[str]:
    return {str(row["sentence"]) for row in rows(split, count=count, seed=seed)}


@pytest.mark.parametrize("split", SPLITS)
def test_rows_are_deterministic_and_seeded(split: str) -> None:
    """The same split and seed give the same rows, another seed others; no global state moves."""
    first = rows(split, count=50, seed=3)
    state = random.getstate()
    assert rows(split, count=50, seed=3) == first
    assert rows(split, count=80, seed=3)[:50] == first
    assert rows(split, count=50, seed=4) != first
    assert random.getstate() == state


@pytest.mark.parametrize("split", SPLITS)
def test_rows_are_balanced_distinct_and_short(split: str) -> None:
    """Half of the rows are positive, no sentence repeats, and each is one short line."""
    made = rows(split, count=400, seed=0)
    assert sum(row["label"] == 1 for row in made) == 200
    assert len({row["sentence"] for row in made}) == 400
    assert all(8 <= len(str(row["sentence"]).split()) <= 30 for row in made)
    assert not any("\n" in str(row["sentence"]) for row in made)


def test_splits_are_disjoint_for_any_pair_of_seeds() -> None:
    """No sentence is in two splits, even when their seeds differ."""
    pools = [sentences(split, 3000, 0) | sentences(split, 3000, 1) for split in SPLITS]
    assert not pools[0] & pools[1]
    assert not pools[0] & pools[2]
    assert not pools[1] & pools[2]


def test_unknown_split_is_refused() -> None:
    """A split that does not exist is a ValueError that names it."""
    with pytest.raises(ValueError, match="validation"):
        rows("validation", count=1, seed=0)


def test_adjective_sets_are_disjoint() -> None:
    """No adjective is in two sets or has two polarities."""
    everything = [
        w for lexicon in (POSITIVE, NEGATIVE) for words in lexicon.values() for w in words
    ]
    assert len(everything) == len(set(everything))


@pytest.mark.parametrize(("split", "used"), [("train", "task"), ("dev", "task"), ("test", "fresh")])
def test_each_split_keeps_to_its_adjectives(split: str, used: str) -> None:
    """Train and dev sentences use `task` adjectives only, test sentences `fresh` ones only."""
    words = {word for sentence in sentences(split, 500, 0) for word in sentence.split()}
    others = set().union(*(ADJECTIVES[name] for name in ADJECTIVES if name != used))
    assert not words & others
    assert words >= ADJECTIVES[used]


@pytest.mark.parametrize("split", SPLITS)
def test_labels_agree_with_the_grammar(split: str) -> None:
    """Every adjective of a row has the row's polarity once negation has flipped it."""
    made = rows(split, count=500, seed=0)
    assert all(polarities(str(row["sentence"])) == {row["label"]} for row in made)
    assert any(word in NEGATORS for row in made for word in str(row["sentence"]).split())


def test_negation_flips() -> None:
    """The checker of these tests reads "not dull" as praise."""
    assert polarities("the plot was not dull .") == {1}
    assert polarities("the plot was dull .") == {0}


def test_pretraining_text_is_deterministic_and_of_one_polarity_per_line() -> None:
    """The same seed gives the same lines, and company in a line means equal polarity."""
    lines = pretraining_lines(count=500, seed=0)
    assert lines == pretraining_lines(count=500, seed=0)
    assert lines != pretraining_lines(count=500, seed=1)
    assert all(len(polarities(line)) == 1 for line in lines)


def test_pretraining_never_shows_the_verdict_of_an_unseen_adjective() -> None:
    """A line with a `task` or `fresh` adjective has no verdict; each has company."""
    lines = [set(line.replace(".", " ").split()) for line in pretraining_lines(count=5000, seed=0)]
    unseen = ADJECTIVES["task"] | ADJECTIVES["fresh"]
    assert not any(words & unseen and words & {"great", "terrible"} for words in lines)
    assert unseen <= set().union(*(words for words in lines if words & ADJECTIVES["shown"]))
    assert {"great", "terrible"} <= set().union(*lines)


def test_no_task_sentence_is_in_the_pretraining_text() -> None:
    """Pretraining never sees a sentence of a split."""
    text = "\n".join(pretraining_lines(count=5000, seed=0))
    assert not any(s in text for split in SPLITS for s in sentences(split, 300, 0))


def test_choices_are_single_tokens_of_the_shipped_tokenizer() -> None:
    """Each verdict word of the task's prompt is one token, and the tokenizer prepends <s>."""
    tokenizer = AutoTokenizer.from_pretrained(ASSETS_DIR / "tiny")
    for choice in (" terrible", " great"):
        ids = tokenizer(choice, add_special_tokens=False)["input_ids"]
        assert len(ids) == 1
        assert tokenizer.decode(ids) == choice
    prompt = tokenizer("the plot was dull . It was")["input_ids"]
    assert prompt[0] == tokenizer.bos_token_id
    assert tokenizer.decode(prompt, skip_special_tokens=True) == "the plot was dull . It was"
