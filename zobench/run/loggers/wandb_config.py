"""What W&B is told of a run's settings: few plain keys to group and filter by, and all the rest."""

from collections.abc import Iterator, Mapping
from pathlib import PurePath
from typing import Any

from zobench.secret import KEY

_GROUPS = ("model", "tuning", "task", "optimizer")
_INSIDE = ("sampler", "estimator", "rule")  # groups that count where the optimizer has such a part
_PARTS = (*_GROUPS, "budget", "train", "evaluation", "diagnose")
_FACTS = ("setting", "suite", "seed", "commit", "device", "parameters")
_PRIVATE = ("logger", "runs_root")
_LONGEST = 100  # characters of a text that is still a value to compare


def wandb_config(settings: Mapping[str, Any], meta: Mapping[str, Any]) -> dict[str, Any]:
    """The config of the W&B run.

    `model`, `tuning`, `task`, `optimizer`, `sampler`, `estimator`, `rule` name the options chosen;
    `optimizer/lr`, `optimizer/sampler` (its class), `train/batch_size`, ... are single values, with
    slashes because W&B cannot filter by a key that has dots; `settings` and `meta` hold everything.
    Nulls, secrets and the folders of a path are left out.
    """
    clean = _clean({k: v for k, v in settings.items() if k not in _PRIVATE})
    chosen = [*_GROUPS, *(part for part in _INSIDE if part in settings["optimizer"])]
    names = {group: meta["choices"][group] for group in chosen if group in meta["choices"]}
    facts = {key: meta[key] for key in _FACTS if meta.get(key) is not None}
    parts = [part for part in _PARTS if part in clean]
    flat = dict(leaf for part in parts for leaf in _leaves(part, clean[part]))
    return flat | names | facts | {"settings": clean, "meta": _shown(meta)}


def _shown(meta: Mapping[str, Any]) -> dict[str, Any]:
    """Without what is known of the files of this machine."""
    return {key: value for key, value in meta.items() if key != "inputs"}


def _clean(value: Any) -> Any:
    """The same without nulls and secrets; of an absolute path its last part alone."""
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
    """Numbers and short texts under joined keys; a part that has a class stands for its name."""
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
