"""ReCoRD in SuperGLUE's own form: a passage, where its entities stand, and queries.

The hub, which MeZO reads, sorts entities and answers; which answer is taught depends on it.
"""

from collections.abc import Iterator

from zobench.tasks.example import Row
from zobench.tasks.raw.fields import field, has


def shape(row: Row) -> Iterator[Row]:
    """A row per query: passage, query, entities and answers, the texts once each and sorted.

    A query without answers (the official test split) has an empty list of them.
    """
    if has(row, "query", "entities"):
        yield row
        return
    passage = field(row.values, "passage", dict, row.where)
    text = field(passage, "text", str, row.where)
    entities = []
    for spot in field(passage, "entities", list, row.where):
        start, end = (field(spot, name, int, row.where) for name in ("start", "end"))
        entities.append(text[start : end + 1])  # the end is the last letter
    for number, entry in enumerate(field(row.values, "qas", list, row.where), start=1):
        where = f"{row.where} query {number}"
        values = {
            "passage": text,
            "query": field(entry, "query", str, where),
            "entities": sorted({*entities}),
        }
        answers = field(entry, "answers", list, where) if "answers" in entry else []
        texts = {field(answer, "text", str, where) for answer in answers}
        yield Row(values | {"answers": sorted(texts)}, where)
