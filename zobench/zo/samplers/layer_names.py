"""Which layer of a model a parameter belongs to, by its name."""

import re


def block_of(name: str) -> str:
    """The block that a parameter's name belongs to."""
    numbered = re.match(r"(?:.*?\.)?\d+(?=\.|$)", name)
    return numbered[0] if numbered else name.rpartition(".")[0]


def natural(name: str) -> list[tuple[int, str]]:
    """A sort key that puts layer 2 before layer 10."""
    parts = re.split(r"(\d+)", name)
    return [(int(part), "") if part.isdigit() else (-1, part) for part in parts]
