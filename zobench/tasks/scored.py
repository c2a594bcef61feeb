"""What tasks whose scores are no choice have in common: rows as candidates with a value."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence

import torch

from zobench.interface import Interface
from zobench.tasks.choice_problem import ChoiceProblem
from zobench.tasks.draw import Draw
from zobench.tasks.encoder import Encoder, check_truncation
from zobench.tasks.encoding import Encoded
from zobench.tasks.example import Example, Row, Splits
from zobench.tasks.findings import repeated_texts
from zobench.tasks.losses import Loss, loss_named, read_rows, with_rows
from zobench.tasks.problem import Loaded
from zobench.tasks.reading import Reading
from zobench.tasks.source import FromSource, Source
from zobench.tasks.split_metrics import OfSplit, metrics_named


class ScoredTask(FromSource, ABC):
    """Rows whose candidates are scored, and a value that the scores of a row are compared with.

    A task of this kind gives a loss and a reading of the scores (`loss_and_reading`), the texts of
    a row (`render`) and its value (`value`). loss: the name of that loss, or a function of the
    user's own of (output, value, row), whose negative mean is the loss. metrics: of a split. The
    rest is as in ChoiceTask.
    """

    kind: str  # the name of the loss
    known: Mapping[str, OfSplit]  # the metrics that `task.metrics` may name

    def __init__(
        self,
        *,
        version: int,
        source: Source,
        sizes: Mapping[str, int],
        loss: str | Callable[..., float],
        metrics: Sequence[str | Callable[..., float]] | None,
        data_seed: int = 0,
        shuffled: bool = True,
        data_dir: str | None = None,
        truncation: str = "error",
        max_length: int | None = None,
    ) -> None:
        check_truncation(truncation)
        self.version, self.source, self.data_dir = version, source, data_dir
        self.draw = Draw(sizes, data_seed, shuffled=shuffled)
        self.loss, self.metrics = loss, metrics_named(metrics, self.known)
        self.truncation, self.max_length = truncation, max_length
        self._objective(Interface.CAUSAL)  # raises UserError for an unknown loss

    @abstractmethod
    def loss_and_reading(self, interface: Interface) -> tuple[Loss, Reading]:
        """The loss and the reading of scores of a model of this interface."""

    @abstractmethod
    def render(self, row: Row, interface: Interface) -> Sequence[Example]:
        """The texts whose candidates are scored together."""

    @abstractmethod
    def value(self, row: Row) -> float | tuple[int, ...] | None:
        """What the scores are compared with."""

    def load(self, interface: Interface = Interface.CAUSAL) -> Splits[Sequence[Example]]:
        """Read, draw and render the three splits for a model of this interface."""
        rows = self.draw(self.source.rows(self.data_dir))
        return rows.each(lambda row: self.render(row, interface))

    def prepare(self, loaded: Loaded, device: torch.device) -> ChoiceProblem:
        """Load, render and tokenise all splits; raises UserError for a row that does not fit."""
        encoder = Encoder(loaded, self.max_length, self.truncation)
        objective, reading = self._objective(encoder.interface)
        rows = self.draw(self.source.rows(self.data_dir))
        texts = rows.each(lambda row: self.render(row, encoder.interface))
        encoded = {
            split: [self._merged(some, row, encoder) for some, row in zip(given, own, strict=True)]
            for (split, given), own in zip(vars(texts).items(), vars(rows).values(), strict=True)
        }
        encoder.probe_padding([e for some in encoded.values() for e in some], device)
        encoded = {split: self.valued(some, encoder, device) for split, some in encoded.items()}
        if read_rows(objective, self.metrics):
            encoded = {split: with_rows(some, vars(rows)[split]) for split, some in encoded.items()}
        evaluated = {split: encoded[split] for split in ("dev", "test")}
        return ChoiceProblem(
            *(encoded, evaluated, objective, encoder, device),
            reading=reading,
            metrics=self.metrics,
            notes=self.findings(encoded) + repeated_texts(vars(texts.each(lambda some: some[0]))),
        ).tried()

    def valued(
        self, encoded: list[Encoded], encoder: Encoder, device: torch.device
    ) -> list[Encoded]:
        """The examples with values that need the model before training; by default as they are."""
        del encoder, device
        return encoded

    def findings(self, encoded: Mapping[str, Sequence[Encoded]]) -> list[str]:
        """Irregularities of the values, in sentences; by default there are none."""
        del encoded
        return []

    def _merged(self, texts: Sequence[Example], row: Row, encoder: Encoder) -> Encoded:
        """The candidates of a row's texts as one example."""
        candidates = tuple(c for text in texts for c in encoder(text).candidates)
        return Encoded(candidates, 0, value=self.value(row))

    def _objective(self, interface: Interface) -> tuple[Loss, Reading]:
        loss, reading = self.loss_and_reading(interface)
        return loss_named(self.loss, reading, {self.kind: lambda: loss}), reading
