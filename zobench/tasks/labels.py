"""The class of a row: the value of its label column among `task.labels`."""

import re
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from zobench.errors import UserError
from zobench.tasks.cells import WORDS, called, finite, named
from zobench.tasks.example import Row
from zobench.tasks.shown import listed, nfc, quoted, skeleton, visible

_NUMBER = re.compile(r"[+-]?\d{1,30}(\.\d{1,30})?")


class Labels:
    """The values of a label column, in the order of the choices.

    A cell is the label with the same text, else the one that is the same number (1.0 and 1) or the
    same truth value (`true` and True). Accents may be composed or decomposed.
    """

    def __init__(self, values: Sequence[Any]) -> None:
        for place, value in enumerate(values):
            if not isinstance(value, WORDS) or not finite(value):
                raise UserError(
                    f"task.labels.{place}: expected a text or a number, found {called(value)}"
                )
        self.texts = [nfc(str(value)) for value in values]
        self._texts_alone = all(isinstance(value, str) for value in values)
        self._values = list(map(_value, self.texts))

    @property
    def repeat(self) -> bool:
        """Whether one of them comes twice."""
        return len(set(self.texts)) < len(self.texts)

    def index(self, row: Row, column: str) -> int:
        """The place of the row's label; UserError where it has none of them."""
        name = named(row.values, column)
        if name is None:
            raise UserError(
                f"{row.where}: no column {quoted(column)} (task.label);"
                f" the row has {listed(row.values)}"
            )
        cell = row.values[name]
        if not isinstance(cell, WORDS) or not finite(cell):
            raise UserError(
                f"{row.where}: column {visible(name)} (task.label) is {called(cell)}: the row has"
                " no label; give it one, or remove the row"
            )
        text = nfc(str(cell))
        if text in self.texts:
            return self.texts.index(text)
        value = _value(text)
        alike = [at for at, known in enumerate(self._values) if known == value is not None]
        if len(alike) != 1:
            raise UserError(
                f"{row.where}: label {quoted(text)} is not one of {listed(self.texts)}"
                f" (task.labels){self._nearly(text)}"
            )
        return alike[0]

    def _nearly(self, text: str) -> str:
        bare = skeleton(text)
        for known in self.texts:
            if skeleton(known) == bare:
                return f"; it differs from {quoted(known)} by case, blanks or unseen characters"
        if not self._texts_alone:
            return '; YAML reads no and 1e3 as values, "no" and "1e3" as texts'
        return ""


def _value(text: str) -> Decimal | str | None:
    """The number, or the truth value in lower case, that a text spells."""
    if _NUMBER.fullmatch(text):
        return Decimal(text)
    return text.lower() if text.lower() in ("true", "false") else None
