"""A task whose answers are generated: templates, stop strings, metric, sizes."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from zobench.errors import UserError
from zobench.interface import Interface
from zobench.tasks.chat import check_chat, turns_in
from zobench.tasks.draw import Draw
from zobench.tasks.encoder import Encoder, check_truncation
from zobench.tasks.evaluation import evaluating
from zobench.tasks.example import Example, Row, Splits
from zobench.tasks.findings import repeated_texts
from zobench.tasks.generation_problem import GenerationProblem, Metric, Prompt
from zobench.tasks.in_context import Rendered, check_demonstrations, with_demonstrations
from zobench.tasks.losses import AnswerLoss, SequenceLoss
from zobench.tasks.metrics import METRICS
from zobench.tasks.own import OF_AN_EXAMPLE, own_function
from zobench.tasks.problem import Loaded
from zobench.tasks.source import FromSource, Source
from zobench.tasks.split_metrics import metrics_named
from zobench.tasks.templates import Expression, Template, refuse_escapes
from zobench.tasks.writing import Writer

_LOSSES = {"answer": AnswerLoss, "sequence": SequenceLoss}


def _metric(given: Any, key: str, others: Sequence[str], extract: re.Pattern[str] | None) -> Metric:
    """The metric that a setting holds. others: what it may hold besides, for the message."""
    if own := own_function(given, key, OF_AN_EXAMPLE):
        return Metric(own.name, own, extract)
    if given not in METRICS:
        raise UserError(
            f"{key}={given}: choose {', '.join((*others, *METRICS))}, or a function of your own,"
            " such as mine.reward"
        )
    return Metric(given, METRICS[given], extract)


class GenerationTask(FromSource):
    """Question answering by greedy generation, as data.

    prompt: Jinja2 template over a row's columns. answers: expression for a text or a list of texts
    that are right. target: template of the text that is taught after the prompt, leading space and
    stop string included. metric: `f1`, `exact_match`, `same_number`, or a function of the user's
    own of (text, answers, row); of the generated text up to the first of `stop`, of at most
    `max_new_tokens` tokens. metrics: further ones; functions of the user's own get all texts,
    answers and rows of a split. extract: a regular expression; its last match's first group is
    judged instead of all of it (GSM8K). loss: `answer` (language modelling of the target),
    `sequence` (of the whole text), or what `metric` may be (its negative mean over
    generations, for optimizers that need no gradient: MeZO's F1 objective). before: expression for
    a list of messages, {"role": ..., "content": ...}, that a chat holds before the prompt. In a
    chat the end of the turn is taught after the target. The rest is as in ChoiceTask.
    """

    def __init__(
        self,
        *,
        version: int,
        prompt: str,
        answers: str,
        target: str,
        metric: str | Callable[..., float],
        source: Source,
        sizes: Mapping[str, int],
        stop: Sequence[str] = ("\n",),
        max_new_tokens: int = 50,
        extract: str | None = None,
        loss: str | Callable[..., float] = "answer",
        metrics: Sequence[str | Callable[..., float]] | None = None,
        example: Mapping[str, Any] | None = None,
        demonstrations: int = 0,
        data_seed: int = 0,
        data_dir: str | None = None,
        truncation: str = "error",
        max_length: int | None = None,
        chat: str | bool | None = None,
        before: str | None = None,
    ) -> None:
        check_chat(chat)
        check_truncation(truncation)
        check_demonstrations(demonstrations)
        if max_new_tokens < 1 or not all(stop):
            raise UserError("task.max_new_tokens must be at least 1 and no text of task.stop empty")
        for number, text in enumerate(stop):
            refuse_escapes(text, f"task.stop.{number}")
        try:
            self.extract = None if extract is None else re.compile(extract)
        except re.error as error:
            raise UserError(f"task.extract: {error}") from None
        self.version, self.example = version, example
        self.prompt, self.target = Template(prompt, "task.prompt"), Template(target, "task.target")
        self.prompt.check_columns()
        self.answers = Expression(answers, "task.answers")
        self.chat, self.before = chat, None if before is None else Expression(before, "task.before")
        self.metric = _metric(metric, "task.metric", (), self.extract)
        taught = _LOSSES.get(loss) if isinstance(loss, str) else None
        self.objective = (taught or AnswerLoss)()
        self.loss_metric = None
        if taught is None:
            self.loss_metric = _metric(loss, "task.loss", (*_LOSSES,), self.extract)
        known = {n: Metric(n, judge, self.extract).mean for n, judge in METRICS.items()}
        self.metrics = metrics_named(metrics, known)
        if self.metric.name == "loss":
            raise UserError("task.metric: loss is the name of another number; rename your function")
        if any(metric.name == self.metric.name for metric in self.metrics):
            raise UserError(f"task.metrics: {self.metric.name} is task.metric already")
        self.stop, self.max_new_tokens = tuple(stop), max_new_tokens
        self.demonstrations = demonstrations
        self.source, self.data_dir = source, data_dir
        self.draw = Draw(sizes, data_seed)
        self.truncation, self.max_length = truncation, max_length

    def render(self, row: Row) -> tuple[Example, tuple[str, ...]]:
        """The row as prompt and target, and the answers that are right."""
        answers = self.answers.texts(row)
        if not answers:
            raise UserError(f"{row.where}: task.answers: there is none")
        before = () if self.before is None else turns_in(self.before.items(row), row.where)
        target = (self.target(row),)
        return Example(self.prompt(row), target, 0, row.where, before=before), answers

    def load(self) -> Splits[tuple[Example, tuple[str, ...]]]:
        """Read, draw and render the three splits."""
        return self.draw(self.source.rows(self.data_dir)).each(self.render)

    def prepare(self, loaded: Loaded, device: torch.device) -> GenerationProblem:
        """Load, render and tokenise all splits; raises UserError for a row that does not fit."""
        encoder = Encoder(loaded, self.max_length, self.truncation, self.chat)
        if encoder.interface is not Interface.CAUSAL:
            raise UserError("this task generates text, which needs a decoder")
        chat = encoder.chat
        if chat is None and self.before is not None:
            raise UserError("task.before: earlier turns are for a chat model; set task.chat=true")
        room = encoder.max_length - self.max_new_tokens
        if room < 1:
            raise UserError(
                f"task.max_new_tokens={self.max_new_tokens}: the model takes"
                f" {encoder.max_length} tokens in all, prompt included"
            )
        objective = self.objective
        pools = self.source.rows(self.data_dir)
        drawn = self.draw(pools)
        rendered = drawn.each(self.render)
        splits = rendered.each(lambda pair: pair[0])
        answers = vars(rendered.each(lambda pair: pair[1]))
        whole = Rendered(pools["train"], lambda row: self.render(row)[0])
        loss_examples, prompts = {}, {}
        for split, examples in vars(splits).items():
            taught = examples if chat is None else map(chat.closed, examples)
            loss_examples[split] = [objective.loss_example(encoder(e)) for e in taught]
            shots = 0 if split == "train" else self.demonstrations
            train = whole if split == "test" else splits.train
            turns = chat is not None
            shown = with_demonstrations(examples, train, shots, self.draw.seed, turns=turns)
            parts = zip(shown, answers[split], vars(drawn)[split], strict=True)
            prompts[split] = [
                Prompt(encoder.prompt(e, room), right, row.values) for e, right, row in parts
            ]
        encoder.probe_padding([e for some in loss_examples.values() for e in some], device)
        writer = self._writer(
            encoder, [p.tokens for some in prompts.values() for p in some], device
        )
        bare = splits.each(lambda example: replace(example, choices=()))
        for metric in (self.metric, self.loss_metric):
            if metric is not None:
                metric.tried(prompts["dev"][0])
        return GenerationProblem(
            *(loss_examples, prompts, objective, encoder, device, writer),
            *(self.metric, self.loss_metric),
            metrics=self.metrics,
            notes=encoder.notes + repeated_texts(vars(bare)),
        )

    def _writer(
        self, encoder: Encoder, prompts: Sequence[tuple[int, ...]], device: torch.device
    ) -> Writer:
        """A writer whose grouping was probed on the shortest and the longest prompt."""
        padding, stop, ends = encoder.padding, self.stop, frozenset[int]()
        if encoder.chat is not None:
            stop, ends = (*stop, *encoder.chat.stops), encoder.chat.ends
        writer = Writer(encoder.tokenizer, stop, self.max_new_tokens, padding, device, ends=ends)
        short, long = min(prompts, key=len), max(prompts, key=len)
        other = long[-1] if long[-1] != padding else int(padding == 0)
        with evaluating(encoder.model):
            grouping = writer.grouping_of(encoder.model, short, long, other)
        return replace(writer, grouping=grouping)
