"""WinoGrande in the instruction wrapper of LLM-Adapters (Hu et al. 2023)."""

import re
from collections.abc import Iterator

from zobench.errors import UserError
from zobench.tasks.example import Row
from zobench.tasks.raw.fields import field, has
from zobench.tasks.shown import quoted

_WRAPPER = re.compile(
    r".*complete the given sentence: (?P<sentence>.*_.*)\n\n"
    r"Option1: (?P<option1>.*) Option2: (?P<option2>.*) Answer format: option1/option2",
    re.DOTALL,
)


def shape(row: Row) -> Iterator[Row]:
    """The row as sentence, option1, option2 and answer ("1" or "2")."""
    if has(row, "sentence", "option1", "option2"):
        yield row
        return
    match = _WRAPPER.fullmatch(field(row.values, "instruction", str, row.where))
    if match is None:
        raise UserError(
            f"{row.where}: the instruction is not `... complete the given sentence: S_S`,"
            " a blank line, `Option1: A Option2: B Answer format: option1/option2`"
        )
    answer = field(row.values, "answer", str, row.where)
    if answer not in ("option1", "option2"):
        raise UserError(f"{row.where}: the answer is {quoted(answer)}, expected option1 or option2")
    yield Row(match.groupdict() | {"answer": answer.removeprefix("option")}, row.where)
