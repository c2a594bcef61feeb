"""Greedy generation with stop strings."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class Writer:
    """Continues prompts by at most `most` tokens, up to the first of `stop` (not included)."""

    tokenizer: Any
    stop: tuple[str, ...]
    most: int
    device: torch.device

    @torch.no_grad()
    def __call__(self, model: Any, prompts: Sequence[tuple[int, ...]]) -> list[str]:
        """One text per prompt, stripped; prompts are padded on the left, as generating needs."""
        pad, width = self.tokenizer.pad_token_id, max(map(len, prompts))
        ids = [[pad] * (width - len(prompt)) + [*prompt] for prompt in prompts]
        mask = [[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts]
        stops = {"stop_strings": list(self.stop), "tokenizer": self.tokenizer} if self.stop else {}
        written = model.generate(
            input_ids=torch.tensor(ids, device=self.device),
            attention_mask=torch.tensor(mask, device=self.device),
            max_new_tokens=self.most,
            do_sample=False,
            num_beams=1,
            pad_token_id=pad,
            **stops,
        )
        texts = self.tokenizer.batch_decode(written[:, width:], skip_special_tokens=True)
        return [self._cut(text) for text in texts]

    def _cut(self, text: str) -> str:
        for stop in self.stop:
            text = text.split(stop, 1)[0]
        return text.strip()
