"""A task's splits as the model will read them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from zobench.build import build
from zobench.errors import UserError
from zobench.models.causal_lm import max_positions
from zobench.tasks.encoding import Batch, Encoded, collate, encode


@dataclass(frozen=True)
class Data:
    """Encoded splits, and how to make a batch of some of their examples."""

    train: Sequence[Encoded]
    dev: Sequence[Encoded]
    test: Sequence[Encoded]
    pad_id: int
    max_length: int
    device: torch.device

    def batch(self, examples: Sequence[Encoded]) -> Batch:
        return collate(examples, self.pad_id, self.max_length).to(self.device)


def load_data(node: Mapping[str, Any], model: Any, tokenizer: Any, device: torch.device) -> Data:
    """Load, render and tokenise all splits; a row that does not fit stops the run here."""
    task = build(node)
    splits = task.load()
    positions = max_positions(model)
    length = positions if task.max_length is None else task.max_length
    if not 0 < length <= positions:
        raise UserError(f"task.max_length={length}: the model takes 1 to {positions} tokens")
    train, dev, test = (
        [encode(e, tokenizer, max_length=length, truncation=task.truncation) for e in examples]
        for examples in (splits.train, splits.dev, splits.test)
    )
    return Data(train, dev, test, tokenizer.pad_token_id, length, device)
