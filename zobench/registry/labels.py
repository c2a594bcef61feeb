"""Whether the labels of a run say what it is: its settings are composed again from them.

Numbers may be others than those of the option, as tuned rates are. Classes, texts and switches may
not: a combination of parts, or another prompt, is an option of its own with a name of its own.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from zobench.explain import explained
from zobench.grids import settings_of
from zobench.names import options_of, plain_name
from zobench.report.runs import flatten
from zobench.run.folder import RunFolder, read_json
from zobench.run.inputs import CODE

_LABELLED = ("model", "tuning", "task", "optimizer")
_GROUPS = (  # those that choose the settings of these sections, but for the parts of a row
    *("experiment", "grid", "protocol", "data", "scale", "arithmetic"),
    *("model", "tuning", "task", "optimizer", "evaluation", "held_out"),
)
_PARTS = ("sampler", "estimator", "rule")  # which the row has chosen
_FREE = ("task.data_dir", "model.dtype")  # of the machine


def mislabelled(path: Path) -> list[str]:
    """A line for each class, text, switch or option that is not what the run's labels compose to.

    Args:
        path: the folder of an entry.

    Raises:
        UserError: a file is damaged.
    """
    folder = RunFolder(path)
    plain, labels = folder.settings(), read_json(folder.meta)["choices"]
    options = options_of(labels)
    words = [f"{key}={plain_name(key, options[key])}" for key in _GROUPS if options.get(key)]
    try:
        settings, chosen = settings_of(words, plain)
    except Exception as error:
        if (message := explained(error)) is None:
            raise
        if CODE in read_json(folder.meta).get("inputs", {}):  # an option of its author's, too
            return []
        return [f"choices of meta.json: {message.splitlines()[0]}"]
    return [*_names(path, labels), *_options(labels, chosen), *_settings(plain, settings)]


def _names(path: Path, labels: Mapping[str, str]) -> Iterator[str]:
    """The folder's name begins with the labels."""
    name = "-".join(labels[group] for group in ("task", "model", "tuning", "optimizer"))
    if not path.name.startswith(f"{name}-"):
        yield f"folder: {path.name} does not begin with {name}, as the choices of meta.json say"


def _options(labels: Mapping[str, str], chosen: Mapping[str, Any]) -> Iterator[str]:
    """The parts that the row is made of, by their options' names."""
    for part in _PARTS:
        if part in labels and labels[part] != chosen[part]:
            row = labels["optimizer"]
            yield f"{part}: {labels[part]} in meta.json, {chosen[part]} by optimizer={row}"


def _settings(plain: Mapping[str, Any], settings: Mapping[str, Any]) -> Iterator[str]:
    """Of the labelled sections; keys that only one has are from another version of its yaml."""
    for section in _LABELLED:
        then, now = (flatten({section: one[section]}) for one in (plain, settings))
        for key in sorted(then.keys() | now.keys()):
            one, other = then.get(key, "nothing"), now.get(key, "nothing")
            both = (key in then and key in now) or key.endswith("._target_")
            if both and one != other and not _number(one) and key not in _FREE:
                yield f"{key}: {one} in config.yaml, {other} by the choices of meta.json"


def _number(value: Any) -> bool:
    """Whether a setting is a number, or a list of numbers."""
    if isinstance(value, list):
        return all(map(_number, value))
    return isinstance(value, int | float) and not isinstance(value, bool)
