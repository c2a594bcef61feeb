"""Irregularities of drawn splits: classes without rows, texts of dev or test that train has."""

from collections.abc import Mapping, Sequence

from zobench.tasks.example import Example
from zobench.tasks.shown import listed, nfc


def missing_classes(splits: Mapping[str, Sequence[Example]], labels: Sequence[str]) -> list[str]:
    """One note if a split has no row of some class."""
    right = {split: [e.right or (e.gold,) for e in some] for split, some in splits.items()}
    return unused_labels(right, labels)


def unused_labels(
    right: Mapping[str, Sequence[Sequence[int]]], labels: Sequence[object]
) -> list[str]:
    """One note if a split has no row of some class. right: by split, the classes of each row."""
    found = []
    for split, rows in right.items():
        there = {number for numbers in rows for number in numbers}
        without = [label for number, label in enumerate(labels) if number not in there]
        if without:
            found.append(f"{split} has no row of {listed(without)}")
    return [f"classes (task.labels): {'; '.join(found)}"] if found else []


def repeated_texts(splits: Mapping[str, Sequence[Example]]) -> list[str]:
    """One note if rows of dev or test read as rows of train do."""
    known = set(map(_text, splits["train"]))
    found = []
    for split in ("dev", "test"):
        if count := sum(_text(example) in known for example in splits[split]):
            found.append(f"{count:,} of {len(splits[split]):,} texts of {split}")
    return [f"{' and '.join(found)} stand in train, too"] if found else []


def _text(example: Example) -> tuple[str, ...]:
    """The text and its choices, as two rows may differ in the choices alone, or earlier turns."""
    earlier = [turn.content for turn in example.before]
    shown = (*earlier, example.prompt, example.after, *example.choices)
    return tuple(" ".join(nfc(text).split()) for text in shown)
