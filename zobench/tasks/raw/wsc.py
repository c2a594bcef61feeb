"""WSC in SuperGLUE's own form, whose two spans lie under `target`."""

from collections.abc import Iterator
from typing import Any

from zobench.tasks.example import Row
from zobench.tasks.raw.fields import field, has

_SPANS = {"span1_text": str, "span2_text": str, "span1_index": int, "span2_index": int}


def shape(row: Row) -> Iterator[Row]:
    """The row with span1_text, span2_text, span1_index and span2_index as columns."""
    if has(row, "span1_text", "span2_text"):
        yield row
        return
    target = field(row.values, "target", dict, row.where)
    spans: dict[str, Any] = {
        name: field(target, name, kind, row.where) for name, kind in _SPANS.items()
    }
    yield Row({k: v for k, v in row.values.items() if k != "target"} | spans, row.where)
