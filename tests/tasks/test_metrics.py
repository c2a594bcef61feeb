"""SQuAD's metrics: published examples, and what holds for any two texts."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zobench.tasks.metrics import METRICS, exact_match, f1, normalised, same_number

WORDS = st.lists(st.sampled_from(["film", "film.", "Film", "plot", "the", "an", "was", "1976"]))
TEXT = WORDS.map(" ".join) | st.text(max_size=20)


@pytest.mark.parametrize(
    ("text", "bare"),
    [
        ("   Rock    n  Roll.", "rock n roll"),
        ("The Eiffel Tower!", "eiffel tower"),
        ("an apple, a day", "apple day"),
        ("U.S.A.", "usa"),
        ("theatre and Anna", "theatre and anna"),
        ("the", ""),
        ("a\tb\n\u00a0c", "b c"),
    ],
)
def test_normalised_text(text: str, bare: str) -> None:
    """Case, punctuation, articles and white space go; words that hold an article stay."""
    assert normalised(text) == bare


# the metric card of SQuAD in huggingface/datasets (metrics/squad/README.md): 66.67 for both
CARD = [
    ("1976", "1976", 1.0),
    ("Beyonce", "Beyonc\u00e9 and Bruno Mars", 0.0),
    ("climate change", "climate change", 1.0),
]


def test_the_example_of_the_metric_card() -> None:
    """2 of 3 answers are right; letters with and without accents differ."""
    for metric in (f1, exact_match):
        scores = [metric(prediction, [gold]) for prediction, gold, _ in CARD]
        assert scores == [score for _, _, score in CARD]
        assert 100 * sum(scores) / len(scores) == pytest.approx(66.66666666666667)
    assert f1("1999", ["1976"]) == exact_match("1999", ["1976"]) == 0


@pytest.mark.parametrize(
    ("prediction", "answers", "score"),
    [
        ("rock", ["rock n roll"], 2 * 1 * (1 / 3) / (1 + 1 / 3)),
        ("Saint Bernadette", ["Saint Bernadette Soubirous"], 0.8),
        ("Denver Broncos won", ["Denver Broncos", "The Denver Broncos", "Carolina"], 0.8),
        ("well well", ["well"], 2 / 3),  # a word counts as often as it stands there
        ("no", ["no answer"], 0.0),
        ("No answer.", ["no answer"], 1.0),
        ("CannotAnswer", ["CANNOTANSWER"], 1.0),
        ("no", ["no doubt"], 2 / 3),
        ("", [], 1.0),
        ("something", [], 0.0),
        ("the", ["a"], 1.0),
    ],
)
def test_f1_of_worked_examples(prediction: str, answers: list[str], score: float) -> None:
    """2 P R / (P + R) with the best answer, and all or nothing for an answer that says none."""
    assert f1(prediction, answers) == pytest.approx(score)


@given(TEXT, TEXT)
def test_f1_is_symmetric_and_1_only_for_the_same_words(one: str, other: str) -> None:
    """A score between 0 and 1; 0 means that no word is shared."""
    score = f1(one, [other])
    words, others = Counter(normalised(one).split()), Counter(normalised(other).split())
    assert 0 <= score <= 1
    assert score == f1(other, [one])
    assert (score == 1) == (words == others)
    assert (score == 0) == (not words & others and words != others)


@given(TEXT, TEXT)
def test_an_exact_match_is_a_full_f1(one: str, other: str) -> None:
    """Exact match is 0 or 1, symmetric, and never above F1."""
    match = exact_match(one, [other])
    assert match in (0, 1)
    assert match == exact_match(other, [one])
    assert match <= f1(one, [other])
    assert exact_match(one, [one]) == exact_match(f" {one.upper()}\n", [one.upper()]) == 1


@given(TEXT, st.lists(TEXT, min_size=1), TEXT)
def test_another_answer_never_lowers_a_score(text: str, answers: list[str], more: str) -> None:
    """The best answer counts, in whatever order."""
    for metric in METRICS.values():
        score = metric(text, answers)
        assert score == max(metric(text, [answer]) for answer in answers)
        assert metric(text, [more, *answers]) >= score


@given(TEXT)
def test_normalising_twice_changes_nothing(text: str) -> None:
    """A text that is normalised already stays as it is."""
    assert normalised(normalised(text)) == normalised(text)


@pytest.mark.parametrize(
    ("prediction", "gold", "score"),
    [
        ("1,200", "1200", 1.0),
        ("1200.00", "1200", 1.0),
        ("$5", "5", 1.0),
        ("-3", "3", 0.0),
        ("2.5", "25", 0.0),
        ("five", "5", 0.0),
        ("", "0", 0.0),
        ("nan", "nan", 0.0),
    ],
)
def test_numbers_are_compared_as_numbers(prediction: str, gold: str, score: float) -> None:
    """Exact match after SQuAD's normalisation would drop signs and decimal points."""
    assert same_number(prediction, [gold]) == score
