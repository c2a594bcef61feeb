"""How one model reads examples: its tokenizer, its longest context, its interface."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from zobench.errors import UserError
from zobench.interface import Interface
from zobench.tasks.batch import Batch, collate
from zobench.tasks.encoding import Encoded, encode, encode_classes, encode_masked
from zobench.tasks.evaluation import in_batches
from zobench.tasks.example import Example
from zobench.tasks.prior import first_token
from zobench.tasks.problem import Loaded
from zobench.tasks.scoring import class_scores, language_scores
from zobench.tasks.shared_prefix import shared_prefix_scores

_ENCODERS = {
    Interface.CAUSAL: encode,
    Interface.MASKED: encode_masked,
    Interface.CLASSIFIER: encode_classes,
}


def check_truncation(truncation: str) -> None:
    """Raise UserError unless it is one of the two that `Reading` knows."""
    if truncation not in ("error", "left"):
        raise UserError(f"task.truncation={truncation}: choose error or left")


class Reading:
    """From examples to tokens, from tokens to batches, for one model.

    max_length: of a context in tokens; None is what the model takes. Raises UserError for a model
    that reads no text, or a length that it does not take.
    """

    def __init__(self, loaded: Loaded, max_length: int | None, truncation: str) -> None:
        if loaded.tokenizer is None or loaded.interface is None:
            raise UserError(
                "this task is text and the model reads none: choose model=tiny, hf, ...;"
                " random weights go with task=random_tokens"
            )
        self.tokenizer, self.interface = loaded.tokenizer, loaded.interface
        most = _positions(loaded.model.config) - _virtual_tokens(loaded.model)
        self.max_length = most if max_length is None else max_length
        if not 0 < self.max_length <= most:
            raise UserError(f"task.max_length={max_length}: the model takes 1 to {most} tokens")
        self.truncation = truncation
        classifies = self.interface is Interface.CLASSIFIER
        self.scores: Callable[..., Tensor] = class_scores if classifies else language_scores

    def evaluated(self, model: Any, batch: Batch, at_once: int, *, summed: bool = False) -> Tensor:
        """As `scores`, for evaluation: for fewer tokens where candidates begin alike."""
        if self.interface is Interface.CAUSAL:
            found = shared_prefix_scores(model, batch, at_once, summed=summed)
            if found is not None:
                return found
        return self.scores(model, batch, summed=summed)

    def __call__(self, example: Example, prior: Example | None = None) -> Encoded:
        """Tokenise an example and, where scores are calibrated, its content-free twin."""
        limits: dict[str, Any] = {"max_length": self.max_length, "truncation": self.truncation}
        encoded = _ENCODERS[self.interface](example, self.tokenizer, **limits)
        if prior is None:
            return encoded
        if self.interface is Interface.CAUSAL:
            limits["start"] = first_token(self.tokenizer)
        twin = _ENCODERS[self.interface](prior, self.tokenizer, **limits)
        return replace(encoded, prior=twin.candidates)

    def prompt(self, example: Example, room: int) -> tuple[int, ...]:
        """The prompt alone, of at most `room` tokens."""
        ids = self.tokenizer(example.prompt)["input_ids"]
        if len(ids) > room:
            if self.truncation == "error":
                raise UserError(
                    f"{example.where}: the prompt takes {len(ids)} tokens, the model has room for"
                    f" {room} beside the answer; set task.truncation=left to keep its end"
                )
            bos = ids[:1] if ids[0] == self.tokenizer.bos_token_id else []
            ids = bos + ids[len(ids) - room + len(bos) :]
        return tuple(ids)

    def batches(
        self, examples: Sequence[Encoded], batch_size: int, device: torch.device
    ) -> Iterator[Batch]:
        """All of them, those of like length together."""
        for some in in_batches(examples, batch_size):
            yield self.batch(some, device)

    def batch(self, examples: Sequence[Encoded], device: torch.device) -> Batch:
        return collate(examples, self.tokenizer.pad_token_id, self.max_length).to(device)


def _virtual_tokens(model: Any) -> int:
    """Positions that a prefix or soft prompt takes."""
    tuned = getattr(model, "active_peft_config", None)
    return int(getattr(tuned, "num_virtual_tokens", None) or 0)


def _positions(config: Any) -> int:
    """How many tokens a model takes; RoBERTa's positions begin after the padding id."""
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    positions = int(getattr(text, "max_position_embeddings", None) or 2048)
    roberta = "roberta" in text.model_type or text.model_type in ("camembert", "xlm-roberta")
    return positions - text.pad_token_id - 1 if roberta else positions
