"""Questions as {context, question, answer}, with one answer and nothing else."""

from collections.abc import Iterator

from zobench.tasks.example import Row
from zobench.tasks.raw.fields import field, has


def shape(row: Row) -> Iterator[Row]:
    """The row with SQuAD's columns: an empty title, and answers {"text": [answer]}."""
    if has(row, "context", "question", "answers"):
        yield row
        return
    context, question, answer = (
        field(row.values, name, str, row.where) for name in ("context", "question", "answer")
    )
    answers = {"text": [answer]}
    yield Row(
        {"title": "", "context": context, "question": question, "answers": answers}, row.where
    )
