"""Pretrain a small language model from text: a tokenizer, weights and a Hugging Face folder.

First-order and plain on purpose: it makes the starting points that zeroth-order tuning needs where
no checkpoint can be downloaded. An architecture that can be a masked language model (RoBERTa) is
trained as one, every other as a causal one.
"""

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional
from transformers import (
    MODEL_FOR_MASKED_LM_MAPPING,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    PreTrainedConfig,
    PreTrainedTokenizerFast,
)

from zobench.errors import UserError
from zobench.models.pretrain_data import (
    IGNORED,
    SMALLEST_VOCABULARY,
    Text,
    mask_tokens,
    next_tokens,
    pad_rows,
    token_rows,
    train_tokenizer,
)
from zobench.models.pretrain_output import LOG_FILE, Report, appears_when_done


@dataclass(frozen=True)
class Pretrained:
    """What a pretraining run made: the folder, its size, and its loss on held-out lines (nats)."""

    out: Path
    parameters: int
    vocabulary: int
    heldout_loss: float
    seconds: float


def pretrain(
    *,
    text: Sequence[str] | Text,
    architecture: PreTrainedConfig,
    out: str | Path,
    vocab_size: int,
    context: int,
    steps: int,
    batch_size: int,
    lr: float,
    seed: int,
    pack: bool = False,
    warmup_share: float = 0.05,
    weight_decay: float = 0.01,
    grad_clip: float = 1.0,
    heldout_share: float = 0.02,
    log_every: int = 50,
    overwrite: bool = False,
    device: str = "cpu",
) -> Pretrained:
    """Train a tokenizer and a model of kind `architecture` on `text`; save both in `out`.

    `context` is in tokens, `batch_size` in rows, `lr` the peak of a warm-up and cosine decay to 0.
    The vocabulary and the special ids of `architecture` are set from the tokenizer. The global
    random state is left as it was; the same arguments give the same weights. `out` appears only
    when everything is done. Raises UserError for bad text, a full `out` or an impossible size.
    """
    if min(steps, batch_size) < 1 or context < 3 or vocab_size < SMALLEST_VOCABULARY:
        raise UserError(
            f"steps={steps} and batch_size={batch_size} must be at least 1, context={context} at "
            f"least 3, vocab_size={vocab_size} at least {SMALLEST_VOCABULARY} (the bytes)"
        )
    out = Path(out)
    began = time.perf_counter()
    lines = list(text.lines() if isinstance(text, Text) else text)
    devices = range(torch.cuda.device_count())  # Seeding below reaches every one of them.
    with torch.random.fork_rng(devices), appears_when_done(out, overwrite=overwrite) as folder:
        generator = torch.Generator().manual_seed(seed)
        torch.random.manual_seed(seed)  # Initial weights (and dropout) draw from the global state.
        train_lines, heldout_lines = _hold_out(lines, heldout_share, generator)
        masked = type(architecture) in MODEL_FOR_MASKED_LM_MAPPING
        tokenizer = train_tokenizer(
            train_lines, vocab_size=vocab_size, context=context, closed=masked
        )
        learner = _Learner(_build(architecture, tokenizer, context, masked), tokenizer, masked)
        learner.model.to(device)
        rows = token_rows(train_lines, tokenizer, context=context, pack=pack)
        optimizer = _adamw(learner.model, lr, weight_decay)
        batches = _shuffled_batches(rows, batch_size, generator)
        learner.model.train()
        with Report(folder / LOG_FILE, steps, log_every) as report:
            for step in range(1, steps + 1):
                for group in optimizer.param_groups:
                    group["lr"] = lr * _schedule(step, steps, warmup_share)
                total, count = learner.loss(next(batches), generator)
                loss = total / max(count, 1)
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                torch.nn.utils.clip_grad_norm_(learner.model.parameters(), grad_clip)
                optimizer.step()
                report.step(step, loss.item())
            heldout_rows = token_rows(heldout_lines, tokenizer, context=context, pack=pack)
            heldout_loss = learner.evaluate(heldout_rows, batch_size, seed)
            report.write({"step": steps, "heldout_loss": heldout_loss})
        learner.model.to("cpu").save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    parameters = sum(parameter.numel() for parameter in learner.model.parameters())
    seconds = time.perf_counter() - began
    return Pretrained(out, parameters, len(tokenizer), heldout_loss, seconds)


def _hold_out(
    lines: list[str], share: float, generator: torch.Generator
) -> tuple[list[str], list[str]]:
    """(training lines, held-out lines), each in the order of the text, neither empty."""
    if len(lines) < 2:
        raise UserError(f"the text has {len(lines)} lines, pretraining needs at least 2")
    size = min(max(1, round(share * len(lines))), len(lines) - 1)
    chosen = set(torch.randperm(len(lines), generator=generator)[:size].tolist())
    training = [line for index, line in enumerate(lines) if index not in chosen]
    return training, [lines[index] for index in sorted(chosen)]


def _build(
    architecture: PreTrainedConfig, tokenizer: PreTrainedTokenizerFast, context: int, masked: bool
) -> torch.nn.Module:
    """A model with fresh weights whose vocabulary and special ids are those of `tokenizer`."""
    architecture.vocab_size = len(tokenizer)
    architecture.bos_token_id = tokenizer.bos_token_id
    architecture.eos_token_id = tokenizer.eos_token_id
    architecture.pad_token_id = tokenizer.pad_token_id
    # RoBERTa's first position is pad_token_id + 1: that many entries of its table go unused.
    unused = tokenizer.pad_token_id + 1 if masked else 0
    if context + unused > architecture.max_position_embeddings:
        raise UserError(
            f"context={context} needs {context + unused} positions, the architecture has "
            f"{architecture.max_position_embeddings}"
        )
    auto = AutoModelForMaskedLM if masked else AutoModelForCausalLM
    return auto.from_config(architecture, dtype=torch.float32)


@dataclass(frozen=True)
class _Learner:
    """A model and how its loss is read from rows of token ids."""

    model: Any
    tokenizer: PreTrainedTokenizerFast
    masked: bool

    def loss(
        self, rows: Sequence[Sequence[int]], generator: torch.Generator
    ) -> tuple[torch.Tensor, int]:
        """(sum of the tokens' cross-entropy in nats, number of tokens)."""
        ids, mask = pad_rows(rows, self.tokenizer.pad_token_id)
        if self.masked:
            ids, labels = mask_tokens(
                ids,
                mask_id=self.tokenizer.mask_token_id,
                vocabulary=len(self.tokenizer),
                generator=generator,
            )
        else:
            labels = next_tokens(ids, mask)
        device = self.model.device
        logits = self.model(input_ids=ids.to(device), attention_mask=mask.to(device)).logits
        total = functional.cross_entropy(
            logits.flatten(0, 1), labels.flatten().to(device), ignore_index=IGNORED, reduction="sum"
        )
        return total, int((labels != IGNORED).sum())

    @torch.no_grad()
    def evaluate(self, rows: list[list[int]], batch_size: int, seed: int) -> float:
        """Mean loss per token over `rows`, in nats; masking is the same at every call."""
        self.model.eval()
        generator = torch.Generator().manual_seed(seed)
        batches = [rows[at : at + batch_size] for at in range(0, len(rows), batch_size)]
        pairs = [self.loss(batch, generator) for batch in batches]
        return sum(total.item() for total, _ in pairs) / max(sum(n for _, n in pairs), 1)


def _adamw(model: torch.nn.Module, lr: float, weight_decay: float) -> torch.optim.AdamW:
    """AdamW that decays matrices only, with the short memory that short runs need."""
    matrices = [p for p in model.parameters() if p.ndim >= 2]
    vectors = [p for p in model.parameters() if p.ndim < 2]
    groups: list[dict[str, Any]] = [{"params": matrices}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.98), weight_decay=weight_decay)


def _schedule(step: int, steps: int, warmup_share: float) -> float:
    """Share of the peak learning rate at `step` (from 1): linear warm-up, then cosine to 0."""
    warmup = max(1, round(warmup_share * steps))
    if step <= warmup:
        return step / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def _shuffled_batches(
    rows: list[list[int]], batch_size: int, generator: torch.Generator
) -> Iterator[list[list[int]]]:
    """Batches without end; each pass over the rows has an order of its own."""
    while True:
        order = torch.randperm(len(rows), generator=generator).tolist()
        for at in range(0, max(1, len(order) - batch_size + 1), batch_size):
            yield [rows[index] for index in order[at : at + batch_size]]
