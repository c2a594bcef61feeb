"""Pairwise preference: a chosen and a rejected text per row, trained by DPO's loss.

Rafailov et al. 2023 (arXiv 2305.18290), equation 7. The margin is log p(chosen) - log p(rejected)
of whole texts after the prompt; the reference margin is that of the model before training.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from zobench.errors import UserError
from zobench.interface import Interface
from zobench.tasks.encoder import Encoder
from zobench.tasks.encoding import Encoded
from zobench.tasks.evaluation import evaluating, in_batches, in_data_order
from zobench.tasks.example import Example, Row
from zobench.tasks.losses import ChoiceLoss, Loss, Scores
from zobench.tasks.problem import Answer
from zobench.tasks.reading import Reading
from zobench.tasks.scored import ScoredTask
from zobench.tasks.source import Source
from zobench.tasks.split_metrics import OF_MARGINS
from zobench.tasks.templates import Template

_BATCH = 8  # rows in one forward for the reference margins


class Margins:
    """log p(chosen) - log p(rejected); an answer is right where it is above 0."""

    summed = True
    score_name = "win_rate"

    def of(self, scores: Tensor) -> Tensor:
        """(B,) margins of (B, 2) scores."""
        return scores[:, 0] - scores[:, 1]

    def outputs(self, scores: Tensor, examples: Sequence[Encoded]) -> list[float]:
        del examples
        found: list[float] = self.of(scores).tolist()
        return found

    def answers(self, scores: Tensor, examples: Sequence[Encoded]) -> list[Answer]:
        margins = self.outputs(scores, examples)
        return [Answer("" if m != m else str(int(m <= 0)), "0", float(m > 0)) for m in margins]


class PreferenceLoss(ChoiceLoss):
    """-log sigmoid(beta (margin - reference margin)), the mean over examples."""

    def __init__(self, reading: Margins, beta: float) -> None:
        self.reading, self.beta = reading, beta

    def value(self, scores: Tensor, batch: Any) -> Tensor:
        gained = self.reading.of(scores) - batch.gold.to(scores.device, scores.dtype)
        return -logsigmoid(self.beta * gained).mean()

    def outputs(self, model: Any, batch: Any, scores: Scores) -> Tensor:
        return scores(model, batch, summed=True)


class PreferenceTask(ScoredTask):
    """Of two texts after a prompt one is preferred.

    prompt, chosen, rejected: Jinja2 templates over a row's columns; the two texts with their
    leading space. beta: DPO's. loss: `preference`, or a function of the user's own of (margin,
    reference margin, row). metrics: `reward_accuracy` (if null), the share of rows whose margin is
    above the reference's, and functions of the user's own of all margins, reference margins and
    rows. The accuracy is the win rate: the share of rows whose chosen text is the more likely one.
    """

    kind = "preference"
    known = OF_MARGINS

    def __init__(
        self,
        *,
        version: int,
        prompt: str,
        chosen: str,
        rejected: str,
        source: Source,
        sizes: Mapping[str, int],
        beta: float = 0.1,
        loss: str | Callable[..., float] = "preference",
        metrics: Sequence[str | Callable[..., float]] | None = None,
        data_seed: int = 0,
        shuffled: bool = True,
        data_dir: str | None = None,
        truncation: str = "error",
        max_length: int | None = None,
    ) -> None:
        if not beta > 0:
            raise UserError(f"task.beta={beta}: must be above 0")
        self.prompt = Template(prompt, "task.prompt")
        self.prompt.check_columns()
        self.texts = (Template(chosen, "task.chosen"), Template(rejected, "task.rejected"))
        self.beta = beta
        super().__init__(
            version=version,
            source=source,
            sizes=sizes,
            loss=loss,
            metrics=[*OF_MARGINS] if metrics is None else metrics,
            data_seed=data_seed,
            shuffled=shuffled,
            data_dir=data_dir,
            truncation=truncation,
            max_length=max_length,
        )

    def loss_and_reading(self, interface: Interface) -> tuple[Loss, Reading]:
        if interface is not Interface.CAUSAL:
            raise UserError("this task compares likelihoods of texts, which needs a decoder")
        reading = Margins()
        return PreferenceLoss(reading, self.beta), reading

    def render(self, row: Row, interface: Interface) -> Sequence[Example]:
        del interface
        chosen, rejected = (text(row) for text in self.texts)
        if chosen == rejected:
            raise UserError(f"{row.where}: task.chosen and task.rejected are the same text")
        return [Example(self.prompt(row), (chosen, rejected), 0, row.where)]

    def value(self, row: Row) -> None:
        """None: the reference margin needs the model."""

    def valued(
        self, encoded: list[Encoded], encoder: Encoder, device: torch.device
    ) -> list[Encoded]:
        """The examples with their reference margins."""
        found: list[float] = []
        with evaluating(encoder.model):
            for some in in_batches(encoded, _BATCH):
                batch = encoder.batch(some, torch.device("cpu"))
                how: dict[str, Any] = {"summed": True, "device": device}
                scores = encoder.evaluated(encoder.model, batch, _BATCH, **how)
                found += Margins().outputs(scores, some)
        margins = in_data_order(encoded, found)
        return [replace(e, value=margin) for e, margin in zip(encoded, margins, strict=True)]
