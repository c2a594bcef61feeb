"""A task with a set of verbal choices per row: templates, label column, sizes."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from zobench.errors import UserError
from zobench.interface import Interface
from zobench.tasks.chat import check_chat
from zobench.tasks.choice_problem import ChoiceProblem
from zobench.tasks.draw import Draw
from zobench.tasks.encoder import Encoder, check_truncation
from zobench.tasks.encoding import Encoded, check_distinct
from zobench.tasks.example import Example, Row, Splits
from zobench.tasks.findings import missing_classes, repeated_texts
from zobench.tasks.in_context import Examples, Rendered, check_demonstrations, with_demonstrations
from zobench.tasks.labels import Labels
from zobench.tasks.losses import LOSSES, loss_named, read_rows, with_rows
from zobench.tasks.prior import check_start
from zobench.tasks.problem import Loaded
from zobench.tasks.reading import Choosing
from zobench.tasks.source import FromSource, Source
from zobench.tasks.split_metrics import OF_CHOICES, metrics_named
from zobench.tasks.templates import Expression, Template


class ChoiceTask(FromSource):
    """Classification by the likelihood of a text, as data.

    prompt: Jinja2 template over a row's columns, which ends where the choice begins. choices: one
    template per class, leading space included; label: the column with the class; labels: its
    values, in the order of `choices`. Instead of label and labels, `each` is an expression that
    lists the candidates: the one template in `choices` is rendered for each `item`, and `right` is
    an expression that is true for a correct item (the first correct one is taught).
    cloze: template for masked language models with one `{{ mask }}`; without it the mask follows
    the prompt and a full stop follows the mask. texts: one or two templates that a classification
    head reads; without them it reads the prompt.
    loss: `choice` (cross-entropy over the choices), `answer` (language modelling of the right
    choice), `sequence` (of the whole text), `accuracy` (its negative, for optimizers that need
    no gradient), or a function of the user's own of (scores of the choices, number of the right
    one, row), whose negative mean is the loss. metrics: `mcc`, `macro_f1`, `balanced_accuracy`, and
    functions of the user's own of all outputs, numbers and rows of a split.
    demonstrations: examples from train put before each prompt of dev and test (see
    `zobench.tasks.in_context`).
    calibrated: score log p(choice | prompt) - log p(choice | content_free), not the mean log p;
    content_free is a template too, and may be empty (see `zobench.tasks.prior`).
    sizes: examples per split, drawn by `data_seed` (see Draw); shuffled=False takes the first rows.
    balance: shares of the classes among the rows that train and dev are drawn from, in the order of
    `choices`; without them the rows are as they are.
    data_dir: a folder with the data's files, for machines without the hub.
    chat: true or auto for prompts and choices as turns of a chat (see `zobench.tasks.chat`).
    truncation: what to do with a prompt longer than the model or `max_length` tokens: `error`, or
    `left` to keep the end. version: raise it when a change moves numbers. example: one raw row
    with its exact rendering, which a test checks.
    Protocol: MeZO (arXiv 2305.17333) and its code; templates of masked models: LM-BFF.
    """

    def __init__(
        self,
        *,
        version: int,
        prompt: str,
        choices: Sequence[str],
        source: Source,
        sizes: Mapping[str, int],
        example: Mapping[str, Any] | None = None,
        label: str | None = None,
        labels: Sequence[str | bool | int | float] | None = None,
        each: str | None = None,
        right: str | None = None,
        cloze: str | None = None,
        texts: Sequence[str] | None = None,
        loss: str | Callable[..., float] = "choice",
        metrics: Sequence[str | Callable[..., float]] | None = None,
        demonstrations: int = 0,
        calibrated: bool = False,
        content_free: str = "",
        data_seed: int = 0,
        shuffled: bool = True,
        balance: Sequence[float] | None = None,
        data_dir: str | None = None,
        truncation: str = "error",
        max_length: int | None = None,
        chat: str | bool | None = None,
    ) -> None:
        check_chat(chat)
        check_truncation(truncation)
        check_demonstrations(demonstrations)
        self.version, self.example = version, example
        self.prompt = Template(prompt, "task.prompt")
        self.prompt.check_columns()
        self.choices = [Template(c, f"task.choices.{n}") for n, c in enumerate(choices)]
        self.label, self.labels = label, Labels(labels or ())
        self.each = None if each is None else Expression(each, "task.each")
        self.right = None if right is None else Expression(right, "task.right")
        self._check_choices(choices)
        self.cloze = None if cloze is None else Template(cloze, "task.cloze")
        self.texts = [Template(t, f"task.texts.{n}") for n, t in enumerate(texts or [prompt])]
        if len(self.texts) > 2:
            raise UserError("task.texts: a classification head reads one text or a pair")
        self.loss = loss_named(loss, Choosing(), LOSSES)
        self.metrics = metrics_named(metrics, OF_CHOICES if each is None else {})
        self.demonstrations, self.calibrated = demonstrations, calibrated
        self.content_free = Template(content_free, "task.content_free")
        self.source, self.data_dir = source, data_dir
        self.draw = Draw(sizes, data_seed, shuffled=shuffled)
        self.balance = balance
        self._check_balance()
        self.truncation, self.max_length, self.chat = truncation, max_length, chat

    def _check_choices(self, choices: Sequence[str]) -> None:
        if self.each is not None:
            if self.right is None or len(choices) != 1 or self.label or self.labels.texts:
                raise UserError(
                    "task.each: give `right` and one template in `choices`, no label or labels"
                )
            return
        if self.label is None:
            raise UserError("task.label: name the column with the class (or give each and right)")
        if len(choices) != len(self.labels.texts) or len(choices) < 2:
            raise UserError("task.choices and task.labels must be equally long, at least two")
        if self.labels.repeat or len(set(choices)) < len(choices):
            raise UserError("task.choices and task.labels must not repeat themselves")

    def _check_balance(self) -> None:
        if self.balance is None:
            return
        if self.each is not None or len(self.balance) != len(self.choices):
            raise UserError(
                "task.balance: give a share for each of task.choices, the same in each row"
            )
        if min(self.balance) < 0 or not 0 < sum(self.balance) < float("inf"):
            raise UserError("task.balance: shares must not be negative, nor all of them 0")

    def _rows(self) -> dict[str, list[Row]]:
        """All rows by split, training rows in the shares of `balance`."""
        pools = self.source.rows(self.data_dir)
        if self.balance is None:
            return pools
        assert self.label is not None
        label = partial(self.labels.index, column=self.label)
        rows = {
            split: pool if split == "test" else self.draw.balanced(pool, label, self.balance)
            for split, pool in pools.items()
        }
        if not rows["train"]:
            raise UserError("task.balance: no training rows have the classes in these shares")
        return rows

    def render(self, row: Row) -> Example:
        """The row as a decoder's prompt; UserError names a row that does not fit."""
        choices, right = self._candidates(row)
        neutral = self.content_free(row)
        return Example(self.prompt(row), choices, right[0], row.where, "", right, neutral)

    def render_cloze(self, row: Row) -> Example:
        """The row for a masked language model: text before and after the choice."""
        shown = self.render(row)
        if self.cloze is None:
            return replace(shown, after=".")
        bare = {*self.cloze(row, mask="")}
        mark = next(c for c in map(chr, range(0xE000, 0x110000)) if c not in bare)
        before, *after = self.cloze(row, mask=mark).split(mark)
        if len(after) != 1:
            raise UserError("task.cloze: needs {{ mask }} exactly once")
        return replace(shown, prompt=before, after=after[0])

    def render_texts(self, row: Row) -> Example:
        """The row for a classification head: one text, or a pair (prompt, after)."""
        choices, right = self._candidates(row)
        if self.each is not None:
            raise UserError("task.each: a classification head needs the same classes in every row")
        first, *second = [text(row) for text in self.texts]
        return Example(first, choices, right[0], row.where, "".join(second), right)

    def _candidates(self, row: Row) -> tuple[tuple[str, ...], tuple[int, ...]]:
        """The choices of a row and the indices of those that are right."""
        if self.each is not None:
            assert self.right is not None
            items = self.each.items(row)
            choices = tuple(self.choices[0](row, item=item) for item in items)
            found = tuple(i for i, item in enumerate(items) if self.right.holds(row, item=item))
            if not found:
                raise UserError(f"{row.where}: none of the {len(items)} candidates is right")
            return choices, found
        assert self.label is not None
        gold = self.labels.index(row, self.label)
        return tuple(choice(row) for choice in self.choices), (gold,)

    def load(self, interface: Interface = Interface.CAUSAL) -> Splits[Example]:
        """Read, draw and render the three splits for a model of this interface."""
        return self.draw(self._rows()).each(self._renderer(interface))

    def _renderer(self, interface: Interface) -> Callable[[Row], Example]:
        return {
            Interface.CAUSAL: self.render,
            Interface.MASKED: self.render_cloze,
            Interface.CLASSIFIER: self.render_texts,
        }[interface]

    def prepare(self, loaded: Loaded, device: torch.device) -> ChoiceProblem:
        """Load, render and tokenise all splits; raises UserError for a row that does not fit."""
        encoder = Encoder(loaded, self.max_length, self.truncation, self.chat)
        self._check(encoder)
        pools = self._rows()
        render = self._renderer(encoder.interface)
        drawn = self.draw(pools)
        splits = vars(drawn.each(render))
        encoded = {split: [encoder(e) for e in examples] for split, examples in splits.items()}
        if self.each is None:
            check_distinct(splits["train"][0], encoded["train"][0])
        encoder.probe_padding([e for some in encoded.values() for e in some], device)
        loss_examples = {
            split: [self.loss.loss_example(e) for e in found] for split, found in encoded.items()
        }
        eval_examples = {split: encoded[split] for split in ("dev", "test")}
        if self.demonstrations or self.calibrated:
            whole = Rendered(pools["train"], render)
            for split, train in (("dev", splits["train"]), ("test", whole)):
                eval_examples[split] = self._prompted(splits[split], train, encoder)
        if read_rows(self.loss, self.metrics):
            for some in (loss_examples, eval_examples):
                some |= {split: with_rows(some[split], vars(drawn)[split]) for split in some}
        notes = repeated_texts(splits)
        if self.each is None:
            notes = missing_classes(splits, self.labels.texts) + notes
        notes = encoder.notes + notes
        parts = (loss_examples, eval_examples, self.loss, encoder, device)
        return ChoiceProblem(*parts, metrics=self.metrics, notes=notes).tried()

    def _check(self, encoder: Encoder) -> None:
        self.loss.check(encoder.interface)
        prompted = self.demonstrations or self.calibrated
        if encoder.interface is Interface.CLASSIFIER and prompted:
            raise UserError(
                "task.demonstrations, task.calibrated: a classification head reads no prompts"
            )
        if self._priors_alone(encoder):
            check_start(self.content_free.text, "task.calibrated", encoder.tokenizer)

    def _priors_alone(self, encoder: Encoder) -> bool:
        """Whether choices are scored after the content-free prompt and nothing before it."""
        bare = encoder.interface is Interface.CAUSAL and encoder.chat is None
        return self.calibrated and bare and not self.demonstrations

    def _prompted(
        self, examples: Sequence[Example], train: Examples, encoder: Encoder
    ) -> list[Encoded]:
        """Examples after demonstrations, with their content-free prompts if calibrated."""
        number, seed, turns = self.demonstrations, self.draw.seed, encoder.chat is not None
        shown = with_demonstrations(examples, train, number, seed, turns=turns)
        if not self.calibrated:
            return [encoder(e) for e in shown]
        bare = [replace(e, prompt=e.neutral) for e in examples]
        if self._priors_alone(encoder):
            for e in bare:
                check_start(e.prompt, e.where, encoder.tokenizer)
        priors = with_demonstrations(bare, train, number, seed, turns=turns)
        return [encoder(e, prior) for e, prior in zip(shown, priors, strict=True)]
