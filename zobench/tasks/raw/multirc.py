"""MultiRC in SuperGLUE's own form: a passage with questions, each with answers to judge."""

from collections.abc import Iterator
from typing import Any

from zobench.tasks.example import Row
from zobench.tasks.raw.fields import field, has


def shape(row: Row) -> Iterator[Row]:
    """A row per answer: paragraph, question, answer and, where it is known, label."""
    if has(row, "paragraph", "answer"):
        yield row
        return
    passage = field(row.values, "passage", dict, row.where)
    paragraph = field(passage, "text", str, row.where)
    for q, entry in enumerate(field(passage, "questions", list, row.where), start=1):
        question = field(entry, "question", str, f"{row.where} question {q}")
        for a, answer in enumerate(field(entry, "answers", list, row.where), start=1):
            where = f"{row.where} question {q} answer {a}"
            values: dict[str, Any] = {"paragraph": paragraph, "question": question}
            values["answer"] = field(answer, "text", str, where)
            if "label" in answer:  # the official test split has none
                values["label"] = answer["label"]
            yield Row(values, where)
