"""How well a generated answer matches the gold ones: SQuAD's F1 and exact match.

Rajpurkar et al. 2016, section 6.1; the text is normalised as in their evaluation script.
"""

import re
import string
from collections import Counter
from collections.abc import Callable, Sequence

# an answer that says there is none: a shared word ("no") earns nothing
_NO_ANSWER = ("CANNOTANSWER", "no answer")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalised(text: str) -> str:
    """Lower case, without punctuation and articles, with single blanks between the words."""
    bare = text.lower().translate(_PUNCTUATION)
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
    found, wanted = normalised(prediction).split(), normalised(gold).split()
    if gold in _NO_ANSWER or not (found and wanted):
        return float(found == wanted)
    shared = (Counter(found) & Counter(wanted)).total()
    return 2 * shared / (len(found) + len(wanted))


METRICS: dict[str, Callable[[str, Sequence[str]], float]] = {"f1": f1, "exact_match": exact_match}
