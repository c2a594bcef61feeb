"""A task with a fixed set of verbal choices: prompt template, choices, label column, sizes."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import jinja2
import numpy as np
import torch

from zobench.errors import UserError
from zobench.tasks.choice_problem import ChoiceProblem
from zobench.tasks.encoding import encode
from zobench.tasks.example import Example, Row, Splits
from zobench.tasks.problem import Loaded


class Source(Protocol):
    """Where rows come from."""

    def rows(self, data_dir: str | None) -> dict[str, list[Row]]:
        """Rows of `train`, `test` and, if the data has one of its own, `dev`.

        data_dir: a folder of the user's to read them from.
        """


class ChoiceTask:
    """Classification by the likelihood of a continuation, as data.

    prompt: Jinja2 template over a row's columns. choices: continuation per class, leading space
    included. label: the column with the class; labels: its values, in the order of `choices`.
    sizes: examples per split, drawn by `data_seed` as MeZO draws them (protocol: one permutation
    of train, its first train + dev entries, the last dev of those for dev).
    data_dir: a folder with the data's files, for machines without the hub.
    truncation: what to do with a prompt longer than the model or `max_length` tokens: `error`, or
    `left` to keep the end. version: raise it when a change moves numbers. example: one raw row
    with its exact rendering, which a test checks.
    """

    def __init__(
        self,
        *,
        version: int,
        prompt: str,
        choices: Sequence[str],
        label: str,
        labels: Sequence[str | int],
        source: Source,
        sizes: Mapping[str, int],
        example: Mapping[str, Any],
        data_seed: int = 0,
        data_dir: str | None = None,
        truncation: str = "error",
        max_length: int | None = None,
    ) -> None:
        if len(choices) != len(labels) or len(choices) < 2:
            raise UserError("task.choices and task.labels must be equally long, at least two")
        if len(set(map(str, labels))) < len(labels) or len(set(choices)) < len(choices):
            raise UserError("task.choices and task.labels must not repeat themselves")
        whole = all(isinstance(size, int) and size >= 1 for size in sizes.values())
        if set(sizes) != {"train", "dev", "test"} or not whole:
            raise UserError("task.sizes: give train, dev and test, each a whole number from 1 up")
        if not 0 <= data_seed < 2**32:
            raise UserError(f"task.data_seed={data_seed}: choose one from 0 to 2**32 - 1")
        if truncation not in ("error", "left"):
            raise UserError(f"task.truncation={truncation}: choose error or left")
        self.version, self.example = version, example
        self.choices = tuple(choices)
        self.label, self.labels = label, [str(value) for value in labels]
        self.source, self.sizes, self.data_seed = source, sizes, data_seed
        self.data_dir = data_dir
        self.truncation, self.max_length = truncation, max_length
        environment = jinja2.Environment(
            undefined=jinja2.StrictUndefined, autoescape=False, keep_trailing_newline=True
        )
        try:
            self._prompt = environment.from_string(prompt)
        except jinja2.TemplateSyntaxError as error:
            raise UserError(f"task.prompt: {error}") from None

    def render(self, row: Row) -> Example:
        """The row as prompt, choices and gold index; UserError names the row that does not fit."""
        try:
            prompt = self._prompt.render(row.values)
        except Exception as error:  # a template can raise anything
            raise UserError(f"{row.where}: task.prompt: {error}") from None
        if self.label not in row.values:
            raise UserError(
                f"{row.where}: no column {self.label!r} (task.label);"
                f" the row has {', '.join(row.values)}"
            )
        value = str(row.values[self.label])
        if value not in self.labels:
            raise UserError(
                f"{row.where}: label {value!r} is not one of {', '.join(self.labels)} (task.labels)"
            )
        return Example(prompt, self.choices, self.labels.index(value), row.where)

    def load(self) -> Splits:
        """Draw, render and check the three splits."""
        pools = self.source.rows(self.data_dir)
        if not {"train", "test"} <= pools.keys():
            raise UserError("task.source.splits: say which split is train and which is test")
        train = self._permuted(pools["train"])
        if "dev" in pools:
            dev = self._permuted(pools["dev"])[: self.sizes["dev"]]
            train = train[: self.sizes["train"]]
        else:
            drawn = train[: self.sizes["train"] + self.sizes["dev"]]
            cut = len(drawn) - self.sizes["dev"]
            if cut < 1:
                raise UserError(
                    f"task.sizes.dev={self.sizes['dev']} leaves no training rows of {len(train)}"
                )
            train, dev = drawn[:cut], drawn[cut:]
        test = self._permuted(pools["test"])[: self.sizes["test"]]
        return Splits(*([self.render(row) for row in rows] for rows in (train, dev, test)))

    def prepare(self, loaded: Loaded, device: torch.device) -> ChoiceProblem:
        """Load, render and tokenise all splits; a row that does not fit stops the run here."""
        tokenizer = loaded.tokenizer
        if tokenizer is None:
            raise UserError(
                "this task is text and the model reads none: choose model=tiny, hf, ..."
            )
        splits = self.load()
        positions = int(getattr(loaded.model.config, "max_position_embeddings", 2048))
        length = positions if self.max_length is None else self.max_length
        if not 0 < length <= positions:
            raise UserError(f"task.max_length={length}: the model takes 1 to {positions} tokens")
        encoded = {
            split: [encode(e, tokenizer, max_length=length, truncation=self.truncation) for e in es]
            for split, es in vars(splits).items()
        }
        return ChoiceProblem(encoded, tokenizer.pad_token_id, length, device)

    def _permuted(self, rows: list[Row]) -> list[Row]:
        """The rows in the order of MeZO's `numpy.random.permutation` under this seed."""
        order = np.random.RandomState(self.data_seed).permutation(len(rows))
        return [rows[i] for i in order]
