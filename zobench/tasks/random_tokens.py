"""Random tokens in place of a text: for measurements of memory and time without data."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from zobench.errors import UserError
from zobench.interface import Interface
from zobench.tasks.choice_problem import ChoiceProblem
from zobench.tasks.draw import Draw
from zobench.tasks.encoder import Encoder, check_truncation
from zobench.tasks.encoding import Candidate, Encoded
from zobench.tasks.in_context import check_demonstrations
from zobench.tasks.losses import ChoiceLoss
from zobench.tasks.problem import Loaded

_SPLITS = ("train", "dev", "test")


class RandomTokens:
    """Classification of `length` random tokens, for any language model, without a tokenizer.

    Choices are one token each, predicted at the last place. Batches, scores and loss are those of
    every other task, so a step costs the same. labels: the classes of a classification head.
    demonstrations: each example of dev and test is that many times longer, as with demonstrations
    before it. truncation: `left` cuts examples to the model's length, `error` refuses longer ones.
    sizes: examples per split; data_seed: of tokens, choices and answers. The answers are random,
    too: there is nothing to learn.
    """

    def __init__(
        self,
        *,
        version: int,
        length: int,
        labels: Sequence[Any],
        sizes: Mapping[str, int],
        demonstrations: int = 0,
        truncation: str = "error",
        data_seed: int = 0,
    ) -> None:
        check_truncation(truncation)
        check_demonstrations(demonstrations)
        if length < 1:
            raise UserError(f"task.length={length}: give at least 1 token")
        if len(labels) < 2:
            raise UserError(f"task.labels={list(labels)}: give at least two")
        self.version, self.length, self.classes = version, length, len(labels)
        self.demonstrations, self.truncation = demonstrations, truncation
        self.draw = Draw(sizes, data_seed)

    def prepare(self, loaded: Loaded, device: torch.device) -> ChoiceProblem:
        """Draw all splits; UserError for a model without text, or with too short a context."""
        if loaded.interface is None:
            raise UserError("task=random_tokens: choose a language model, such as model=tiny")
        config = loaded.model.config.get_text_config()
        words = _Words(config.vocab_size, config.pad_token_id or 0)
        encoder = Encoder(_Bare(loaded.model, words, loaded.interface), None, self.truncation)
        longer = self.length * (1 + self.demonstrations)
        loss_examples = {
            split: self._drawn(split, self.length, encoder, words) for split in _SPLITS
        }
        eval_examples = {split: self._drawn(split, longer, encoder, words) for split in _SPLITS[1:]}
        return ChoiceProblem(loss_examples, eval_examples, ChoiceLoss(), encoder, device)

    def _drawn(self, split: str, length: int, encoder: Encoder, words: "_Words") -> list[Encoded]:
        if length > encoder.max_length:
            if self.truncation == "error":
                raise UserError(
                    f"task.length: {length} tokens, the model takes {encoder.max_length}; "
                    "set task.truncation=left to cut them"
                )
            length = encoder.max_length
        targets = tuple(range(self.classes))
        if encoder.interface is not Interface.CLASSIFIER:
            choices = np.random.default_rng(self.draw.seed)
            targets = tuple(words.at(choices.choice(words.size - 1, self.classes, replace=False)))
        generator = np.random.default_rng([self.draw.seed, 1 + _SPLITS.index(split)])
        rows = generator.integers(words.size - 1, size=(self.draw.sizes[split], length))
        golds = generator.integers(self.classes, size=len(rows)).tolist()
        drawn = zip(rows, golds, strict=True)
        return [_encoded(words.at(row), targets, gold) for row, gold in drawn]


class _Words(NamedTuple):
    """What is left of a tokenizer: how many tokens there are, and the one that is padding."""

    size: int
    pad_token_id: int

    def at(self, numbers: Any) -> list[int]:
        """Ids of 0 to size - 2, without padding, which some models give no position."""
        ids: list[int] = (numbers + (numbers >= self.pad_token_id)).tolist()
        return ids


class _Bare(NamedTuple):
    """A loaded model that is read without its tokenizer, where it has one."""

    model: Any
    tokenizer: _Words
    interface: Interface


def _encoded(context: list[int], targets: tuple[int, ...], gold: int) -> Encoded:
    return Encoded(tuple(Candidate(tuple(context), (target,)) for target in targets), gold)
