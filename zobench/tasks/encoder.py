"""Encoding examples for one model: its tokenizer, its longest context, its interface."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from zobench.errors import UserError
from zobench.interface import Interface, padding_id
from zobench.tasks.batch import Batch, collate
from zobench.tasks.chat import NOTE, chat_of
from zobench.tasks.encoding import Encoded, encode, encode_classes, encode_masked, ids_of
from zobench.tasks.evaluation import LAUNCHED, Forwards, in_batches
from zobench.tasks.example import Example
from zobench.tasks.positions import check_ids, longest_text, switches_at
from zobench.tasks.prior import first_token
from zobench.tasks.probes import check_left_to_right, padding_is_hidden
from zobench.tasks.problem import Loaded
from zobench.tasks.scoring import class_scores, language_scores
from zobench.tasks.shared_prefix import shared_prefix_scores

_ENCODERS = {
    Interface.CAUSAL: encode,
    Interface.MASKED: encode_masked,
    Interface.CLASSIFIER: encode_classes,
}


def check_truncation(truncation: str) -> None:
    """Raise UserError unless it is one of the two that `Encoder` knows."""
    if truncation not in ("error", "left"):
        raise UserError(f"task.truncation={truncation}: choose error or left")


class Encoder:
    """Tokenises examples, collates batches and scores them, for one model.

    max_length: of a context in tokens; None is the model's maximum. chat: `task.chat`, true or auto
    for prompts as turns of a chat. Raises UserError for a model without a tokenizer, or without the
    chat template that is asked for, or a length above the model's maximum.
    """

    def __init__(
        self,
        loaded: Loaded,
        max_length: int | None,
        truncation: str,
        chat: str | bool | None = None,
    ) -> None:
        if loaded.tokenizer is None or loaded.interface is None:
            raise UserError(
                "this task is text and the model has no tokenizer: choose model=tiny, hf, ...;"
                " random weights go with task=random_tokens"
            )
        self.tokenizer, self.interface = loaded.tokenizer, loaded.interface
        self.model, self.padding = loaded.model, padding_id(loaded.model, loaded.tokenizer)
        self.alone = False  # whether rows of different lengths stay apart; set by `probe_padding`
        self.switches_at = switches_at(loaded.model)
        most = longest_text(loaded.model)
        self.max_length = most if max_length is None else max_length
        if not 0 < self.max_length <= most:
            raise UserError(f"task.max_length={max_length}: the model takes 1 to {most} tokens")
        self.truncation = truncation
        self.chat = chat_of(chat, loaded)
        classifies = self.interface is Interface.CLASSIFIER
        self.scores: Callable[..., Tensor] = class_scores if classifies else language_scores
        self._scores = {how: partial(self.scores, summed=how) for how in (False, True)}

    def evaluated(
        self,
        model: Any,
        batch: Batch,
        at_once: int,
        *,
        summed: bool = False,
        device: torch.device | None = None,
        forwards: Forwards = LAUNCHED,
    ) -> Tensor:
        """As `scores`, for evaluation: a common prefix of candidates is computed once.

        device: the model's, where the batch is still on the host.
        """
        if self.interface is Interface.CAUSAL and not batch.alone:
            how: dict[str, Any] = {"forwards": forwards, "device": device}
            found = shared_prefix_scores(model, batch, at_once, summed=summed, **how)
            if found is not None:
                return found
        batch = batch if device is None else batch.to(device)
        return forwards(self._scores[summed], model, batch)

    def __call__(self, example: Example, prior: Example | None = None) -> Encoded:
        """Tokenise an example and, where scores are calibrated, its content-free prompt."""
        limits: dict[str, Any] = {"max_length": self.max_length, "truncation": self.truncation}
        encoded = self._encoded(example, limits)
        if prior is None:
            return encoded
        if self.interface is Interface.CAUSAL:
            limits["start"] = first_token(self.tokenizer)
        return replace(encoded, prior=self._encoded(prior, limits).candidates)

    @property
    def notes(self) -> list[str]:
        """What a reader of the numbers has to know about the prompts."""
        return [] if self.chat is None else [NOTE]

    def _encoded(self, example: Example, limits: dict[str, Any]) -> Encoded:
        if self.chat is not None:
            most = self.max_length if self.truncation == "left" else None
            example, limits = self.chat.written(example, most), limits | {"special": False}
        encoded = _ENCODERS[self.interface](example, self.tokenizer, **limits)
        for candidate in encoded.candidates:
            classes = self.interface is Interface.CLASSIFIER
            ids = candidate.context if classes else (*candidate.context, *candidate.target)
            check_ids(ids, self.model, self.tokenizer, example.where)
        return encoded

    def prompt(self, example: Example, room: int) -> tuple[int, ...]:
        """The prompt alone, of at most `room` tokens."""
        if self.chat is None:
            ids = ids_of(self.tokenizer, example.prompt)
        else:
            bare = replace(example, choices=("",))
            most = room if self.truncation == "left" else None
            ids = self.chat.ids(self.chat.written(bare, most).prompt)
        check_ids(ids, self.model, self.tokenizer, example.where)
        if not ids:
            raise UserError(f"{example.where}: the prompt has no tokens")
        if len(ids) > room:
            if self.truncation == "error":
                raise UserError(
                    f"{example.where}: the prompt takes {len(ids)} tokens, the model has room for"
                    f" {room} before the answer; set task.truncation=left to keep its end"
                )
            bos = ids[:1] if ids[0] == self.tokenizer.bos_token_id else []
            ids = bos + ids[len(ids) - room + len(bos) :]
        return tuple(ids)

    def probe_padding(self, examples: Sequence[Encoded], device: torch.device) -> None:
        """Check on the shortest and the longest of these rows whether the model hides padding.

        Where it does not, rows of different lengths stay apart from now on. Raises UserError for a
        model that fails on such rows, or is no left-to-right decoder where it must be one.
        """
        longest = max(examples, key=lambda example: example.length)
        pair = (min(examples, key=lambda example: example.length), longest)
        if self.interface is Interface.CAUSAL:
            check_left_to_right(self.model, longest.candidates[0].context, device)
        other = longest.candidates[0].context[-1]
        pads = (self.padding, other if other != self.padding else int(self.padding == 0))
        self.alone = not padding_is_hidden(
            self.model, self.scores, pair, pads, self.max_length, device
        )

    def batches(
        self, examples: Sequence[Encoded], batch_size: int, device: torch.device
    ) -> Iterator[Batch]:
        """All examples, those of similar length together."""
        for some in in_batches(examples, batch_size):
            yield self.batch(some, device)

    def batch(self, examples: Sequence[Encoded], device: torch.device) -> Batch:
        lengths = [len(c.context) for example in examples for c in example.candidates]
        apart = self.alone or min(lengths) <= self.switches_at < max(lengths)
        return collate(examples, self.padding, self.max_length, alone=apart).to(device)
