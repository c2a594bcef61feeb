"""What runs are called in W&B, and what W&B does not take as a name or setting."""

import hashlib
import re
import secrets
from collections.abc import Mapping, Sequence
from typing import Any

from zobench.errors import UserError
from zobench.run.folder import RunFolder, read_json, write_json

MODES = ("online", "offline", "disabled")
_TAG, _NAME, _JOB, _PROJECT = 64, 128, 64, 128  # characters that W&B takes
_RESERVED = "/\\#?%:"  # in the name of a project
_TAGGED = ("task", "model", "tuning")  # choices that become tags


def id_of(folder: RunFolder, meta: Mapping[str, Any]) -> str:
    """The id of the folder's run in W&B: one of its own, which meta.json keeps.

    Begun with the suite and the run's id, it is the same for all attempts, wherever the folder is
    moved; the same run in another suite, folder or machine is another one.
    """
    there = read_json(folder.meta) if folder.meta.is_file() else dict(meta)
    if "wandb" not in there:
        suite = re.sub(r"[^A-Za-z0-9_-]+", "-", meta["suite"])[:40].strip("-")
        parts = [suite, meta["id"], secrets.token_hex(4)]
        there["wandb"] = "-".join(part for part in parts if part)
        write_json(folder.meta, there)
    known: str = there["wandb"]
    return known


def names_of(meta: Mapping[str, Any]) -> dict[str, str]:
    """Group, name and job type of a run, none longer than W&B takes."""
    return {
        "group": _shortened(meta["suite"], _NAME),
        "name": _shortened(meta["name"], _NAME),
        "job_type": _shortened(meta["choices"]["optimizer"], _JOB),
    }


def tags_of(choices: Mapping[str, str], own: Sequence[Any]) -> tuple[list[str], list[str]]:
    """The tags of a run, each once, and a sentence for each that W&B would not take."""
    named = [(part, choices[part]) for part in _TAGGED] + [("logger.tags", tag) for tag in own]
    tags, refused = [], []
    for key, value in named:
        tag = "" if value is None else str(value)
        if 0 < len(tag) <= _TAG:
            tags.append(tag)
        elif tag:
            refused.append(f"{key}: '{tag[:20]}...' has {len(tag)} letters, the most is {_TAG}")
        else:
            refused.append(f"{key}: one is empty")
    return list(dict.fromkeys(tags)), [f"{said}; mirrored without this tag" for said in refused]


def check_place(project: str, entity: str | None, mode: str | None) -> None:
    """Raise UserError for a place or a mode that W&B does not know."""
    if mode is not None and mode not in MODES:
        raise UserError(f"logger.mode={mode}: choose {', '.join(MODES)} or null")
    for key, name in (("project", project), ("entity", entity)):
        if name is None:
            continue
        bad = "".join(sorted({*name} & {*_RESERVED}))
        if not name.strip() or len(name) > _PROJECT or bad:
            what = f"has {bad}" if bad else "is empty" if not name.strip() else "is too long"
            raise UserError(
                f"logger.{key}={name[:40]}: {what}; W&B takes 1 to {_PROJECT} letters, none of"
                f" {' '.join(_RESERVED)}"
            )


def _shortened(text: str, most: int) -> str:
    """The text, or its beginning and a hash of all of it, so that two remain two."""
    if len(text) <= most:
        return text
    return f"{text[: most - 9]}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
