"""Metrics of generated answers: SQuAD's F1 and exact match, and equal numbers.

Rajpurkar et al. 2016, section 6.1; the text is normalised as in their evaluation script.
"""

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from decimal import Decimal, InvalidOperation

# answers that mean "no answer": a shared word ("no") does not count
_NO_ANSWER = ("CANNOTANSWER", "no answer")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalised(text: str) -> str:
    """Lower case (NFC), without punctuation and articles, with single blanks between the words."""
    bare = unicodedata.normalize("NFC", text).lower().translate(_PUNCTUATION)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", bare).split())


def exact_match(prediction: str, answers: Sequence[str]) -> float:
    """1 if the prediction equals one of the answers after normalisation, else 0.

    A question without answers is answered by the empty text, as in SQuAD 2.0.
    """
    return max(float(normalised(prediction) == normalised(gold)) for gold in answers or [""])


def f1(prediction: str, answers: Sequence[str]) -> float:
    """Harmonic mean of precision and recall over the words; the best of the answers counts.

    Two texts without words agree, as in SQuAD 2.0.
    """
    return max(_f1(prediction, gold) for gold in answers or [""])


def _f1(prediction: str, gold: str) -> float:
    """F1 of two bags of words, twice the shared words over all words."""
    found, expected = normalised(prediction).split(), normalised(gold).split()
    if gold in _NO_ANSWER or not (found and expected):
        return float(found == expected)
    shared = (Counter(found) & Counter(expected)).total()
    return 2 * shared / (len(found) + len(expected))


def same_number(prediction: str, answers: Sequence[str]) -> float:
    """1 if the prediction is the same number as one of the answers, else 0 (GSM8K).

    Commas between digits are dropped; sign and decimal point count. No number is no answer.
    """
    found = _number(prediction)
    return float(found is not None and any(found == _number(gold) for gold in answers))


def _number(text: str) -> Decimal | None:
    try:
        number = Decimal(text.strip().removeprefix("$").replace(",", ""))
    except InvalidOperation:
        return None
    return number if number.is_finite() else None


METRICS: dict[str, Callable[[str, Sequence[str]], float]] = {
    "f1": f1,
    "exact_match": exact_match,
    "same_number": same_number,
}
