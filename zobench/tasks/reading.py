"""What the scores of a row's candidates say: the outputs that metrics get, and the answer."""

from collections.abc import Sequence
from typing import Any, Protocol

from torch import Tensor

from zobench.tasks.encoding import Encoded
from zobench.tasks.problem import Answer


class Reading(Protocol):
    """Reads (B, candidates) scores of B examples."""

    @property
    def summed(self) -> bool:
        """Whether scores are sums over tokens, not means."""

    @property
    def score_name(self) -> str | None:
        """The name of the mean score of the answers; None where it is not reported."""

    def outputs(self, scores: Tensor, examples: Sequence[Encoded]) -> list[Any]:
        """For each example what metrics and functions of the user's own get: plain numbers."""

    def answers(self, scores: Tensor, examples: Sequence[Encoded]) -> list[Answer]:
        """The answer to each example."""


class Choosing:
    """The answer is the choice with the highest score; a NaN score is a wrong answer."""

    summed = False
    score_name = "accuracy"

    def outputs(self, scores: Tensor, examples: Sequence[Encoded]) -> list[Any]:
        """The scores of each example's own choices."""
        pairs = zip(scores.tolist(), examples, strict=True)
        return [values[: len(example.candidates)] for values, example in pairs]

    def answers(self, scores: Tensor, examples: Sequence[Encoded]) -> list[Answer]:
        known = (~scores.isnan().any(1)).tolist()
        found = []
        for choice, k, e in zip(scores.argmax(1).tolist(), known, examples, strict=True):
            right = k and choice in (e.right or (e.gold,))
            found.append(Answer(str(choice) if k else "", str(e.gold), float(right)))
        return found
