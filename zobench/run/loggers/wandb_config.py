"""The W&B config of a run: a few plain keys to group and filter by, and all settings."""

import hashlib
import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePath
from typing import Any

from zobench.errors import UserError
from zobench.run.folder import RunFolder, read_json, write_json
from zobench.run.loggers.wandb_agent import asked_for
from zobench.secret import KEY

_GROUPS = ("model", "tuning", "task", "optimizer")
_INSIDE = ("sampler", "estimator", "rule")  # groups that only some optimizers have
_PARTS = (*_GROUPS, "budget", "train", "evaluation", "diagnose")
_FACTS = ("setting", "suite", "seed", "commit", "device", "parameters")
_PRIVATE = ("logger", "runs_root")
_LONGEST = 100  # characters; longer texts are not useful to compare


def wandb_config(settings: Mapping[str, Any], meta: Mapping[str, Any]) -> dict[str, Any]:
    """The config of the W&B run, without nulls, secrets and the folders of paths.

    `model`, `tuning`, `task`, `optimizer`, `sampler`, `estimator`, `rule` name the options chosen;
    `optimizer/lr`, `optimizer/sampler` (its class), `train/batch_size`, ... are single values (W&B
    cannot filter by keys with dots); `settings` and `meta` hold everything.
    """
    clean = _clean({k: v for k, v in settings.items() if k not in _PRIVATE})
    chosen = [*_GROUPS, *(part for part in _INSIDE if part in settings["optimizer"])]
    names = {group: meta["choices"][group] for group in chosen if group in meta["choices"]}
    facts = {key: meta[key] for key in _FACTS if meta.get(key) is not None}
    parts = [part for part in _PARTS if part in clean]
    flat = dict(leaf for part in parts for leaf in _leaves(part, clean[part]))
    # files of this machine, and what W&B has anyway
    shown = {key: value for key, value in meta.items() if key not in ("inputs", "wandb")}
    return flat | names | facts | {"settings": clean, "meta": shown}


def values_of(config: Mapping[str, Any]) -> dict[str, bool | int | float | str]:
    """Those of the config that are single values: for loggers whose settings are flat."""
    return {k: v for k, v in config.items() if isinstance(v, bool | int | float | str)}


def _clean(value: Any) -> Any:
    """The value without nulls and secrets; of absolute paths only the last part."""
    if isinstance(value, Mapping):
        return {
            str(k): _clean(v) for k, v in value.items() if v is not None and not KEY.search(str(k))
        }
    if isinstance(value, list | tuple):
        return [_clean(item) for item in value]
    if isinstance(value, str) and (value.startswith("~") or PurePath(value).is_absolute()):
        return PurePath(value).name
    return value


def _leaves(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Numbers and short texts under joined keys; a nested part is replaced by its class name."""
    if isinstance(value, Mapping):
        if "_target_" in value:
            yield name, value["_target_"].rpartition(".")[2]
        for key, below in value.items():
            if not key.startswith("_") and key != "example":
                yield from _leaves(f"{name}/{key}", below)
    elif isinstance(value, bool | int | float) or (
        isinstance(value, str) and len(value) <= _LONGEST
    ):
        yield name, value


MODES = ("online", "offline", "disabled")
_TAG, _NAME, _JOB, _PROJECT = 64, 128, 64, 128  # characters that W&B takes
_RESERVED = "/\\#?%:"  # in the name of a project
_TAGGED = ("task", "model", "tuning")  # choices that become tags


def id_of(folder: RunFolder, meta: Mapping[str, Any]) -> str:
    """The folder's run id in W&B, which meta.json keeps for all attempts.

    The same run in another suite, folder or machine has another id. What an agent asks for counts.
    """
    stored = read_json(folder.meta) if folder.meta.is_file() else dict(meta)
    if asked := asked_for():
        stored["wandb"] = asked
        write_json(folder.meta, stored)
    elif "wandb" not in stored:
        suite = re.sub(r"[^A-Za-z0-9_-]+", "-", meta["suite"])[:40].strip("-")
        parts = [suite, meta["id"], secrets.token_hex(4)]
        stored["wandb"] = "-".join(part for part in parts if part)
        write_json(folder.meta, stored)
    return str(stored["wandb"])


def names_of(meta: Mapping[str, Any]) -> dict[str, str]:
    """Group, name and job type of a run, shortened to what W&B accepts."""
    return {
        "group": _shortened(meta["suite"], _NAME),
        "name": _shortened(meta["name"], _NAME),
        "job_type": _shortened(meta["choices"]["optimizer"], _JOB),
    }


def tags_of(choices: Mapping[str, str], own: Sequence[Any]) -> tuple[list[str], list[str]]:
    """The distinct tags of a run, and a message for each tag that W&B would reject."""
    named = [(part, choices[part]) for part in _TAGGED] + [
        ("logger.wandb.tags", tag) for tag in own
    ]
    tags, refused = [], []
    for key, value in named:
        tag = "" if value is None else str(value)
        if 0 < len(tag) <= _TAG:
            tags.append(tag)
        elif tag:
            refused.append(f"{key}: '{tag[:20]}...' has {len(tag)} letters, the limit is {_TAG}")
        else:
            refused.append(f"{key}: one is empty")
    return list(dict.fromkeys(tags)), [f"{text}; mirrored without this tag" for text in refused]


def check_place(project: str, entity: str | None, mode: str | None) -> None:
    """Raise UserError for a project, entity or mode that W&B rejects."""
    if mode is not None and mode not in MODES:
        raise UserError(f"logger.wandb.mode={mode}: choose {', '.join(MODES)} or null")
    for key, name in (("project", project), ("entity", entity)):
        if name is None:
            continue
        bad = "".join(sorted({*name} & {*_RESERVED}))
        if not name.strip() or len(name) > _PROJECT or bad:
            what = f"has {bad}" if bad else "is empty" if not name.strip() else "is too long"
            raise UserError(
                f"logger.wandb.{key}={name[:40]}: {what}; W&B accepts 1 to {_PROJECT} letters,"
                f" none of {' '.join(_RESERVED)}"
            )


def _shortened(text: str, most: int) -> str:
    """The text; if it is too long, its beginning and a hash, which keeps names distinct."""
    if len(text) <= most:
        return text
    return f"{text[: most - 9]}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
