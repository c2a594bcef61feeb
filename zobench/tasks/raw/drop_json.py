"""DROP's JSON, also that of its contrast sets: passages by name, with questions and answers."""

from collections.abc import Iterator
from typing import Any

from zobench.errors import UserError
from zobench.tasks.example import Row
from zobench.tasks.raw.fields import field
from zobench.tasks.shown import brief


def recognised(document: Any) -> bool:
    """Whether the document is `{name: {"passage": ..., "qa_pairs": [...]}}`."""
    if not isinstance(document, dict) or not document:
        return False
    first = next(iter(document.values()))
    return isinstance(first, dict) and "qa_pairs" in first


def rows(document: dict[str, Any], where: str) -> Iterator[Row]:
    """A row per question: section_id, query_id, passage, question, answers_spans {"spans": [...]}.

    Only `answer` counts; the official dev file's `validated_answers` are left out.
    """
    for name, section in document.items():
        spot = f"{where}: entry {brief(name)}"
        passage = field(section, "passage", str, spot)
        for number, entry in enumerate(field(section, "qa_pairs", list, spot), start=1):
            place = f"{spot} question {number}"
            yield Row(
                {
                    "section_id": name,
                    "query_id": entry.get("query_id", "") if isinstance(entry, dict) else "",
                    "passage": passage,
                    "question": field(entry, "question", str, place),
                    "answers_spans": {"spans": spans(field(entry, "answer", dict, place), place)},
                },
                place,
            )


def spans(answer: dict[str, Any], where: str) -> list[str]:
    """The answer's texts: its number, else its spans, else its date (as DROP's own evaluator)."""
    number = answer.get("number")
    if number not in (None, ""):
        return [str(number)]
    if answer.get("spans"):
        return [str(span) for span in field(answer, "spans", list, where)]
    date = field(answer, "date", dict, where) if answer.get("date") else {}
    parts = [str(date.get(part, "")).strip() for part in ("day", "month", "year")]
    if not any(parts):
        raise UserError(f"{where}: the answer has no number, no spans and no date")
    return [" ".join(part for part in parts if part)]
