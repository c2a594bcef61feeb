"""Nested settings: mappings and lists of any depth."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any


def nodes(node: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted key, value) of everything inside a node, and last of the node itself.

    An inner value comes before the mapping or list that it is in.
    """
    items: Iterable[tuple[Any, Any]] = ()
    if isinstance(node, Mapping):
        items = node.items()
    elif isinstance(node, list | tuple):
        items = enumerate(node)
    for name, inner in items:
        yield from nodes(inner, f"{key}.{name}" if key else str(name))
    yield key, node
