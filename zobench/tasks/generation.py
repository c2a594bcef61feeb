"""A task whose answers are generated: templates, stop strings, metric, sizes."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from zobench.errors import UserError
from zobench.interface import Interface
from zobench.tasks.draw import Draw
from zobench.tasks.encoder import Encoder, check_truncation
from zobench.tasks.evaluation import evaluating
from zobench.tasks.example import Example, Row, Splits
from zobench.tasks.findings import repeated_texts
from zobench.tasks.generation_problem import GenerationProblem, Metric, Prompt
from zobench.tasks.in_context import Rendered, check_demonstrations, with_demonstrations
from zobench.tasks.losses import AnswerLoss, SequenceLoss
from zobench.tasks.metrics import METRICS
from zobench.tasks.problem import Loaded
from zobench.tasks.source import FromSource, Source
from zobench.tasks.templates import Expression, Template, refuse_escapes
from zobench.tasks.writing import Writer

_LOSSES = {"answer": AnswerLoss, "sequence": SequenceLoss}


class GenerationTask(FromSource):
    """Question answering by greedy generation, as data.

    prompt: Jinja2 template over a row's columns. answers: expression for a text or a list of texts
    that are right. target: template of the text that is taught after the prompt, leading space and
    stop string included. metric: `f1`, `exact_match` or `same_number`, of the generated text up to
    the first of `stop`, of at most `max_new_tokens` tokens; extract: a regular expression; its last
    match's first group is judged instead of all of it (GSM8K). loss: `answer` (language modelling
    of the target), `sequence` (of the whole text), or a metric (its negative mean over
    generations, for optimizers that need no gradient: MeZO's F1 objective). The rest is as in
    ChoiceTask.
    """

    def __init__(
        self,
        *,
        version: int,
        prompt: str,
        answers: str,
        target: str,
        metric: str,
        source: Source,
        sizes: Mapping[str, int],
        stop: Sequence[str] = ("\n",),
        max_new_tokens: int = 50,
        extract: str | None = None,
        loss: str = "answer",
        example: Mapping[str, Any] | None = None,
        demonstrations: int = 0,
        data_seed: int = 0,
        data_dir: str | None = None,
        truncation: str = "error",
        max_length: int | None = None,
    ) -> None:
        check_truncation(truncation)
        check_demonstrations(demonstrations)
        if metric not in METRICS:
            raise UserError(f"task.metric={metric}: choose {', '.join(METRICS)}")
        if loss not in (*_LOSSES, *METRICS):
            raise UserError(f"task.loss={loss}: choose {', '.join((*_LOSSES, *METRICS))}")
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
        self.metric, self.loss = metric, loss
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
        return Example(self.prompt(row), (self.target(row),), 0, row.where), answers

    def load(self) -> Splits[tuple[Example, tuple[str, ...]]]:
        """Read, draw and render the three splits."""
        return self.draw(self.source.rows(self.data_dir)).each(self.render)

    def prepare(self, loaded: Loaded, device: torch.device) -> GenerationProblem:
        """Load, render and tokenise all splits; raises UserError for a row that does not fit."""
        encoder = Encoder(loaded, self.max_length, self.truncation)
        if encoder.interface is not Interface.CAUSAL:
            raise UserError("this task generates text, which needs a decoder")
        room = encoder.max_length - self.max_new_tokens
        if room < 1:
            raise UserError(
                f"task.max_new_tokens={self.max_new_tokens}: the model takes"
                f" {encoder.max_length} tokens in all, prompt included"
            )
        objective = _LOSSES.get(self.loss, AnswerLoss)()
        pools = self.source.rows(self.data_dir)
        rendered = self.draw(pools).each(self.render)
        splits = rendered.each(lambda pair: pair[0])
        answers = vars(rendered.each(lambda pair: pair[1]))
        whole = Rendered(pools["train"], lambda row: self.render(row)[0])
        loss_examples, prompts = {}, {}
        for split, examples in vars(splits).items():
            loss_examples[split] = [objective.loss_example(encoder(e)) for e in examples]
            shots = 0 if split == "train" else self.demonstrations
            train = whole if split == "test" else splits.train
            shown = with_demonstrations(examples, train, shots, self.draw.seed)
            both = zip(shown, answers[split], strict=True)
            prompts[split] = [Prompt(encoder.prompt(e, room), right) for e, right in both]
        encoder.probe_padding([e for some in loss_examples.values() for e in some], device)
        writer = self._writer(
            encoder, [p.tokens for some in prompts.values() for p in some], device
        )
        bare = splits.each(lambda example: replace(example, choices=()))
        metric = Metric(self.metric, METRICS[self.metric], self.extract)
        judge = METRICS.get(self.loss)
        loss_metric = None if judge is None else Metric(self.loss, judge, self.extract)
        return GenerationProblem(
            *(loss_examples, prompts, objective, encoder, device, writer, metric, loss_metric),
            notes=repeated_texts(vars(bare)),
        )

    def _writer(
        self, encoder: Encoder, prompts: Sequence[tuple[int, ...]], device: torch.device
    ) -> Writer:
        """A writer whose grouping was probed on the shortest and the longest prompt."""
        padding = encoder.padding
        writer = Writer(encoder.tokenizer, self.stop, self.max_new_tokens, padding, device)
        short, long = min(prompts, key=len), max(prompts, key=len)
        other = long[-1] if long[-1] != padding else int(padding == 0)
        with evaluating(encoder.model):
            grouping = writer.grouping_of(encoder.model, short, long, other)
        return replace(writer, grouping=grouping)
