"""Multi-label classification: one binary decision for each class of a row."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from zobench.errors import UserError
from zobench.interface import Interface
from zobench.tasks.encoding import Encoded
from zobench.tasks.example import Example, Row
from zobench.tasks.findings import unused_labels
from zobench.tasks.losses import ChoiceLoss, Loss
from zobench.tasks.problem import Answer
from zobench.tasks.reading import Reading
from zobench.tasks.scored import ScoredTask
from zobench.tasks.source import Source
from zobench.tasks.split_metrics import OF_LABELS
from zobench.tasks.templates import Expression, Template


class Decisions:
    """Probabilities of the classes; an answer names those above 1/2, and is right as a whole.

    pairs: scores are those of the two choices (no, yes) of each class, whose difference is the
    logit; without them scores are logits.
    """

    summed = False
    score_name = "exact_match"

    def __init__(self, *, pairs: bool) -> None:
        self.pairs = pairs

    def logits(self, scores: Tensor) -> Tensor:
        """(B, classes) of the scores."""
        return scores[:, 1::2] - scores[:, 0::2] if self.pairs else scores

    def outputs(self, scores: Tensor, examples: Sequence[Encoded]) -> list[list[float]]:
        del examples
        found: list[list[float]] = self.logits(scores).sigmoid().tolist()
        return found

    def answers(self, scores: Tensor, examples: Sequence[Encoded]) -> list[Answer]:
        logits = self.logits(scores)
        known = (~logits.isnan().any(1)).tolist()
        found = []
        for positive, k, e in zip((logits > 0).int().tolist(), known, examples, strict=True):
            right = k and positive == list(e.expected)
            found.append(
                Answer(_numbers(positive) if k else "", _numbers(e.expected), float(right))
            )
        return found


def _numbers(positive: Sequence[int]) -> str:
    """The numbers of the classes that are 1; `none` where there is none."""
    return " ".join(str(number) for number, one in enumerate(positive) if one) or "none"


class BinaryLoss(ChoiceLoss):
    """Binary cross-entropy, the mean over examples and classes."""

    def __init__(self, reading: Decisions) -> None:
        self.reading = reading

    def value(self, scores: Tensor, batch: Any) -> Tensor:
        gold = batch.gold.to(scores.device, scores.dtype)
        return binary_cross_entropy_with_logits(self.reading.logits(scores), gold)


class MultiLabelTask(ScoredTask):
    """Several classes of a row can be right.

    prompt: Jinja2 template over a row's columns and `item`, one of `labels`: the question whether
    the row has this class. choices: the answers no and yes. labels: the classes. right: an
    expression over the columns and `item` that is true for a class that the row has. text: what a
    classification head reads, which gives a logit for each of `labels`. loss: `binary`
    (cross-entropy), or a function of the user's own of (probabilities, truth values as 0 and 1,
    row). metrics: `micro_f1`, `macro_f1` (both if null), and functions of the user's own of all of
    these. The accuracy is the share of rows with all decisions right.
    """

    kind = "binary"
    known = OF_LABELS

    def __init__(
        self,
        *,
        version: int,
        prompt: str,
        choices: Sequence[str],
        labels: Sequence[str | int | float | bool],
        right: str,
        source: Source,
        sizes: Mapping[str, int],
        text: str | None = None,
        loss: str | Callable[..., float] = "binary",
        metrics: Sequence[str | Callable[..., float]] | None = None,
        data_seed: int = 0,
        shuffled: bool = True,
        data_dir: str | None = None,
        truncation: str = "error",
        max_length: int | None = None,
    ) -> None:
        self.prompt = Template(prompt, "task.prompt")
        self.prompt.check_columns()
        self.text = None if text is None else Template(text, "task.text")
        self.choices = [Template(c, f"task.choices.{n}") for n, c in enumerate(choices)]
        if len({*choices}) != 2:
            raise UserError("task.choices: give two different ones, for no and yes")
        if len({*labels}) < len(labels) or len(labels) < 2:
            raise UserError("task.labels: name at least two classes, each once")
        self.labels, self.right = labels, Expression(right, "task.right")
        super().__init__(
            version=version,
            source=source,
            sizes=sizes,
            loss=loss,
            metrics=[*OF_LABELS] if metrics is None else metrics,
            data_seed=data_seed,
            shuffled=shuffled,
            data_dir=data_dir,
            truncation=truncation,
            max_length=max_length,
        )

    def loss_and_reading(self, interface: Interface) -> tuple[Loss, Reading]:
        reading = Decisions(pairs=interface is not Interface.CLASSIFIER)
        return BinaryLoss(reading), reading

    def render(self, row: Row, interface: Interface) -> Sequence[Example]:
        """A question for each class; for a classification head the text alone."""
        if interface is Interface.CLASSIFIER:
            if self.text is None:
                raise UserError("task.text: give the template that a classification head reads")
            return [Example(self.text(row), tuple(map(str, self.labels)), 0, row.where)]
        after = "." if interface is Interface.MASKED else ""
        choices = tuple(choice(row) for choice in self.choices)
        return [
            Example(self.prompt(row, item=item), choices, 0, row.where, after)
            for item in self.labels
        ]

    def value(self, row: Row) -> tuple[int, ...]:
        """1 for the classes that the row has, else 0."""
        return tuple(int(self.right.holds(row, item=item)) for item in self.labels)

    def findings(self, encoded: Mapping[str, Sequence[Encoded]]) -> list[str]:
        """One note if no row of a split has some class."""
        right = {
            split: [[number for number, one in enumerate(e.expected) if one] for e in some]
            for split, some in encoded.items()
        }
        return unused_labels(right, self.labels)
