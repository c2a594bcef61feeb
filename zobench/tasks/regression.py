"""Regression: the expected value of numbers that verbal choices stand for.

As LM-BFF (Gao et al. 2021, arXiv 2012.15723, section 4.2) does STS-B with two choices, 0 and 5:
y = sum_k p(choice k | choices) v_k. It trains on a KL divergence, this on the squared error.
"""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor
from torch.nn.functional import mse_loss

from zobench.errors import UserError
from zobench.interface import Interface
from zobench.tasks.cells import called, finite, named
from zobench.tasks.encoding import Encoded
from zobench.tasks.example import Example, Row
from zobench.tasks.losses import ChoiceLoss, Loss
from zobench.tasks.problem import Answer
from zobench.tasks.reading import Reading
from zobench.tasks.scored import ScoredTask
from zobench.tasks.shown import listed, quoted, visible
from zobench.tasks.source import Source
from zobench.tasks.split_metrics import OF_NUMBERS
from zobench.tasks.templates import Template


class ExpectedValue:
    """The mean of `values` under the softmax of a row's scores.

    The score of an answer is minus its squared error.
    """

    summed = False
    score_name = None

    def __init__(self, values: Sequence[float]) -> None:
        self.values = torch.tensor(values, dtype=torch.float32)

    def of(self, scores: Tensor) -> Tensor:
        """(B,) numbers of (B, choices) scores."""
        return torch.softmax(scores, dim=1) @ self.values.to(scores.device)

    def outputs(self, scores: Tensor, examples: Sequence[Encoded]) -> list[float]:
        del examples
        found: list[float] = self.of(scores).tolist()
        return found

    def answers(self, scores: Tensor, examples: Sequence[Encoded]) -> list[Answer]:
        pairs = zip(self.outputs(scores, examples), examples, strict=True)
        return [Answer(f"{y:.6g}", f"{e.expected:.6g}", -((y - e.expected) ** 2)) for y, e in pairs]


class SquaredError(ChoiceLoss):
    """Mean squared error of the expected values."""

    def __init__(self, reading: ExpectedValue) -> None:
        self.reading = reading

    def value(self, scores: Tensor, batch: object) -> Tensor:
        gold: Tensor = batch.gold  # type: ignore[attr-defined]
        return mse_loss(self.reading.of(scores), gold.to(scores.device, scores.dtype))


class RegressionTask(ScoredTask):
    """A number per text.

    prompt: Jinja2 template over a row's columns; choices: texts that may follow it, one for each
    number of `labels`. A classification head gives a logit for each of `labels` and reads the
    prompt. label: the column with the number. loss: `mse`, or a function of the user's own of
    (predicted number, number, row). metrics: `pearson`, `spearman` (both if null), and functions of
    the user's own of all predicted numbers, numbers and rows.
    """

    kind = "mse"
    known = OF_NUMBERS

    def __init__(
        self,
        *,
        version: int,
        prompt: str,
        choices: Sequence[str],
        labels: Sequence[float],
        label: str,
        source: Source,
        sizes: Mapping[str, int],
        loss: str | Callable[..., float] = "mse",
        metrics: Sequence[str | Callable[..., float]] | None = None,
        data_seed: int = 0,
        shuffled: bool = True,
        data_dir: str | None = None,
        truncation: str = "error",
        max_length: int | None = None,
    ) -> None:
        self.prompt = Template(prompt, "task.prompt")
        self.prompt.check_columns()
        self.choices = [Template(c, f"task.choices.{n}") for n, c in enumerate(choices)]
        if len(choices) != len(labels) or len({*labels}) < 2:
            raise UserError(
                "task.labels: give a number for each of task.choices, at least two different ones"
            )
        if len({*choices}) < len(choices):
            raise UserError("task.choices: two of them are the same")
        self.label, self.reading = label, ExpectedValue(labels)
        super().__init__(
            version=version,
            source=source,
            sizes=sizes,
            loss=loss,
            metrics=[*OF_NUMBERS] if metrics is None else metrics,
            data_seed=data_seed,
            shuffled=shuffled,
            data_dir=data_dir,
            truncation=truncation,
            max_length=max_length,
        )

    def loss_and_reading(self, interface: Interface) -> tuple[Loss, Reading]:
        del interface
        return SquaredError(self.reading), self.reading

    def render(self, row: Row, interface: Interface) -> Sequence[Example]:
        after = "." if interface is Interface.MASKED else ""
        choices = tuple(choice(row) for choice in self.choices)
        return [Example(self.prompt(row), choices, 0, row.where, after)]

    def value(self, row: Row) -> float:
        """The number in the label column; UserError for a row without one."""
        name = named(row.values, self.label)
        if name is None:
            raise UserError(
                f"{row.where}: no column {quoted(self.label)} (task.label);"
                f" the row has {listed(row.values)}"
            )
        cell = row.values[name]
        try:
            number = float(cell)
        except (TypeError, ValueError):
            number = float("nan")
        if isinstance(cell, bool) or not finite(number):
            raise UserError(
                f"{row.where}: column {visible(name)} (task.label) is {called(cell)}: expected a"
                " number"
            )
        return number
