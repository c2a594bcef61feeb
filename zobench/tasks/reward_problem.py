"""A reward task prepared for one model: prompts, sampled answers and their rewards."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import groupby
from typing import Any, NamedTuple

import torch
from torch import Tensor

from zobench.tasks.evaluation import MapFn, by_length, evaluating, in_batches, in_data_order
from zobench.tasks.generation_problem import Prompt
from zobench.tasks.own import Own
from zobench.tasks.problem import Answer
from zobench.tasks.sampling import Choosing, Sampling
from zobench.tasks.writing import Writer


def pass_at(k: int, *, samples: int, right: int) -> float:
    """The chance that one of k samples is right, without bias (Chen et al. 2021, section 2.1).

    1 - C(samples - right, k) / C(samples, k): k of the samples are drawn without replacement.
    """
    return 1 - math.comb(samples - right, k) / math.comb(samples, k)


def _mean(values: Sequence[float]) -> float:
    """Rounded once; NaN where infinities cancel or the sum is larger than any number."""
    try:
        return math.fsum(values) / len(values)
    except (ValueError, OverflowError):
        return math.nan


@dataclass(frozen=True)
class Asked(Prompt):
    """A prompt with what its noise is drawn by.

    place: numbers of the split and of the row. draw: step and stream of a training batch.
    """

    place: tuple[int, int] = field(kw_only=True)
    draw: tuple[int, ...] = field(default=(), kw_only=True)


class Sample(NamedTuple):
    """A sampled text and its reward."""

    text: str
    reward: float


@dataclass(frozen=True)
class AskedBatch:
    """A batch of prompts. tokens: those of the prompts, once per sample."""

    prompts: Sequence[Asked]
    tokens: int

    @property
    def examples(self) -> int:
        return len(self.prompts)

    def cut(self, first: int, last: int) -> "AskedBatch":
        return replace(self, prompts=self.prompts[first:last])

    def drawn(self, step: int, stream: int) -> "AskedBatch":
        draw = (step, stream)
        return replace(self, prompts=[replace(prompt, draw=draw) for prompt in self.prompts])


@dataclass(frozen=True)
class RewardProblem:
    """Prompts whose sampled answers get rewards; the loss is minus the mean reward.

    Args:
        prompts: Of train, dev and test.
        writer: Continues prompts.
        sampling: The distribution and the noise of the samples.
        reward: Of (text, answers, row).
        samples: Answers per prompt.
        passes: The least reward of a right answer.
        pass_at: Numbers k of pass@k.
        rows_at_once: Prompts of one length that are continued in one batch, with all samples each.
        notes: Irregularities of the rows.
    """

    prompts: Mapping[str, Sequence[Asked]]
    writer: Writer
    sampling: Sampling
    reward: Own
    samples: int
    passes: float
    pass_at: Sequence[int]
    rows_at_once: int
    notes: Sequence[str] = ()

    differentiable = False

    @property
    def sizes(self) -> dict[str, int]:
        return {split: len(prompts) for split, prompts in self.prompts.items()}

    def batch(self, indices: Sequence[int]) -> AskedBatch:
        prompts = [self.prompts["train"][i] for i in indices]
        return AskedBatch(prompts, self.samples * sum(prompt.length for prompt in prompts))

    def length(self, index: int) -> int:
        return self.prompts["train"][index].length

    def loss(self, model: Any, batch: AskedBatch) -> Tensor:
        return self.loss_of(self.outputs(model, batch), batch)

    def outputs(self, model: Any, batch: AskedBatch) -> Tensor:
        """The rewards (B, samples), float64; NaN where the model's logits were."""
        found = self.sampled(model, batch.prompts)
        rewards = [[sample.reward for sample in samples] for samples in found]
        return torch.tensor(rewards, dtype=torch.float64)

    def loss_of(self, outputs: Tensor, batch: AskedBatch) -> Tensor:
        del batch
        return torch.tensor(-_mean(outputs.flatten().tolist()))

    def weight(self, batch: AskedBatch) -> int:
        return len(batch.prompts)

    def evaluate(
        self,
        model: Any,
        split: str,
        batch_size: int,
        answers: list[Answer] | None = None,
        map_fn: MapFn = map,
    ) -> dict[str, float]:
        """`loss`, `reward` (means over all samples), `accuracy` and `pass_at_K`.

        accuracy: the share of samples that are right. answers: the first sample of each row, with
        the share of the row's samples that are right.
        """
        prompts = self.prompts[split]
        with evaluating(model):
            found = list(map_fn(partial(self.sampled, model), in_batches(prompts, batch_size)))
        rows = in_data_order(prompts, [samples for some in found for samples in some])
        right = [sum(sample.reward >= self.passes for sample in samples) for samples in rows]
        if answers is not None:
            for prompt, samples, count in zip(prompts, rows, right, strict=True):
                gold = prompt.answers[0] if prompt.answers else ""
                answers.append(Answer(samples[0].text, gold, count / self.samples))
        rewards = [sample.reward for samples in rows for sample in samples]
        reward = _mean(rewards)
        accuracy = sum(right) / len(rewards)
        values = {"loss": -reward, "reward": reward, "accuracy": accuracy}
        for k in self.pass_at:
            chances = [pass_at(k, samples=self.samples, right=count) for count in right]
            values[f"pass_at_{k}"] = _mean(chances)
        return values

    def sampled(self, model: Any, prompts: Sequence[Asked]) -> list[list[Sample]]:
        """The samples of each prompt.

        Only prompts of one length are continued together, so that there is no padding. With
        `rows_at_once` of 1 a batch holds the samples of a single prompt: the bits of a text depend
        on no other row.
        """
        ordered = [prompts[number] for number in by_length(prompts)]
        found: list[list[Sample]] = []
        for _, alike in groupby(ordered, key=lambda prompt: prompt.length):
            some = list(alike)
            for start in range(0, len(some), self.rows_at_once):
                found += self._continued(model, some[start : start + self.rows_at_once])
        return in_data_order(prompts, found)

    def _continued(self, model: Any, prompts: Sequence[Asked]) -> list[list[Sample]]:
        """The samples of prompts of one length, as one batch."""
        pairs = [(prompt, sample) for prompt in prompts for sample in range(self.samples)]
        noise = [self.sampling.noise(p.place, sample, p.draw) for p, sample in pairs]
        choose = Choosing(self.sampling, noise)
        texts = self.writer.chosen(model, [p.tokens for p in prompts], self.samples, choose)
        assert choose.broken is not None
        found = [
            Sample(text, math.nan if broken else self.reward(text, p.expected, p.row))
            for text, broken, (p, _) in zip(texts, choose.broken.tolist(), pairs, strict=True)
        ]
        return [found[at : at + self.samples] for at in range(0, len(found), self.samples)]
