"""SQuAD's JSON: articles, paragraphs, questions; in v2.0 a question may have no answer."""

from collections.abc import Iterator
from typing import Any

from zobench.tasks.example import Row
from zobench.tasks.raw.fields import field


def recognised(document: Any) -> bool:
    """Whether the document is `{"data": [{"paragraphs": ...}, ...]}`."""
    articles = document.get("data") if isinstance(document, dict) else None
    return isinstance(articles, list) and any(
        isinstance(article, dict) and "paragraphs" in article for article in articles
    )


def rows(document: dict[str, Any], where: str) -> Iterator[Row]:
    """A row per question: title, context, question and answers {"text": [...]}."""
    for a, article in enumerate(document["data"], start=1):
        spot = f"{where}: article {a}"
        for p, paragraph in enumerate(field(article, "paragraphs", list, spot), start=1):
            spot = f"{where}: article {a} paragraph {p}"
            context = field(paragraph, "context", str, spot)
            for q, entry in enumerate(field(paragraph, "qas", list, spot), start=1):
                place = f"{spot} question {q}"
                answers = field(entry, "answers", list, place)
                values = {
                    "id": entry.get("id", ""),
                    "title": article.get("title", ""),
                    "context": context,
                    "question": field(entry, "question", str, place),
                    "answers": {"text": [field(answer, "text", str, place) for answer in answers]},
                }
                yield Row(values, place)
