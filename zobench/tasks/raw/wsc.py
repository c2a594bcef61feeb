"""WSC in SuperGLUE's own form, whose two spans lie under `target`, made the hub's `wsc.fixed`.

The files write some spans otherwise than the text does, mostly in another case. The hub repairs
these in `wsc.fixed`, which MeZO reads; this does the same for rows of files in either form.
"""

from collections.abc import Iterator
from typing import Any

from zobench.tasks.example import Row
from zobench.tasks.raw.fields import field, has

_SPANS = {"span1_text": str, "span2_text": str, "span1_index": int, "span2_index": int}


def shape(row: Row) -> Iterator[Row]:
    """The row with span1_text, span2_text, span1_index and span2_index as columns."""
    values = row.values
    if not has(row, "span1_text", "span2_text"):
        target = field(values, "target", dict, row.where)
        spans: dict[str, Any] = {
            name: field(target, name, kind, row.where) for name, kind in _SPANS.items()
        }
        values = {k: v for k, v in values.items() if k != "target"} | spans
    text = values.get("text")
    if not isinstance(text, str):  # rendering the prompt names the missing column
        yield Row(values, row.where)
        return
    repaired = {
        name: as_in_text(values[name], _place(values.get(name.replace("text", "index"))), text)
        for name in ("span1_text", "span2_text")
    }
    yield Row(values | repaired, row.where)


def as_in_text(span: Any, place: int | None, text: str) -> Any:
    """The span as the text has it; as it was where the hub's rule does not find it either.

    place: of its first word among the text's, by whose case the span's first letter goes. Line
    ends in a span become spaces, and full stops at its end go.
    """
    words = text.split()
    if not isinstance(span, str) or span in text or place is None or not -1 < place < len(words):
        return span
    first = span[0].lower() if words[place][0].islower() else span[0].upper()
    found = (first + span[1:]).rstrip(".").replace("\n", " ")
    return found if found in text else span


def _place(index: Any) -> int | None:
    """The number of a word; a table of texts has it as one."""
    return int(index) if str(index).isdecimal() else None
