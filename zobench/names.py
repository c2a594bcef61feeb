"""Names: those that become parts of paths, and those of metrics."""

import math
import re
from collections import Counter
from collections.abc import Mapping

from zobench.errors import UserError

_PLAIN = re.compile(r"\w[\w.+=@ -]*")
_VARIANT = re.compile(r"-held_out=(\d+)")  # of a task, as `zobench.cli` writes it
_VARIED, _VALUE = 80, 24  # characters of a run's name for what its sweep varies, and for a value
_LONGEST = 100  # characters; file systems take 255 bytes, and a run's name has several


def plain_name(key: str, name: str) -> str:
    """The name, if it is valid for a folder; else UserError."""
    if not _PLAIN.fullmatch(str(name)) or len(str(name)) > _LONGEST:
        raise UserError(
            f"{key}={name}: must be a plain folder name of at most {_LONGEST} characters: letters,"
            " digits and . _ - + = @"
        )
    return str(name)


def short_settings(settings: Mapping[str, str]) -> list[str]:
    """Settings as parts of a name: `optimizer.lr=0.0003` is `lr=3e-4`.

    Keys that would be the same keep their section. What is too long for a name is left out.
    """
    last = Counter(key.rpartition(".")[2] for key in settings)
    parts: list[str] = []
    for key, value in settings.items():
        short = ".".join(key.split(".")[-1 if last[key.rpartition(".")[2]] == 1 else -2 :])
        part = f"{plain_text(short)}={_short(value)}"
        if len("-".join([*parts, part])) <= _VARIED:
            parts.append(part)
    return parts


def _short(value: str) -> str:
    """A value as part of a name: numbers in few letters, of a path the last part."""
    text = value.strip("'\"")
    try:
        number = float(text)
    except ValueError:
        return plain_text(re.split(r"[/:]", text.rstrip("/"))[-1])[:_VALUE].strip("-")
    if not math.isfinite(number) or (number.is_integer() and "e" not in text.lower()):
        return text
    digits, _, power = f"{number:.5e}".partition("e")
    scientific = f"{float(digits):g}e{int(power)}"
    return min(f"{number:.6g}", scientific, key=lambda shown: (len(shown), "e" in shown))


def plain_text(text: str) -> str:
    """The text as part of a file's name."""
    return re.sub(r"[^\w.+=@]+", "-", text).strip("-")


def searched(label: str) -> str:
    """A label with the task itself in place of its held-out variant, which no search has seen."""
    return _VARIANT.sub("", label)


def options_of(labels: Mapping[str, str]) -> dict[str, str]:
    """The options of the config groups that a run's labels stand for, and `held_out`.

    Args:
        labels: `choices` of meta.json, where a task's variant has its seed in its name, and an
            optimizer the evaluation, if it is not `standard`.
    """
    options = {**labels, "task": searched(labels["task"])}
    if drawn := _VARIANT.search(labels["task"]):
        options["held_out"] = drawn[1]
    optimizer, evaluation = labels["optimizer"], labels.get("evaluation", "standard")
    if optimizer == evaluation:  # a run without training has only the evaluation's name
        options["optimizer"] = "zero_shot"
    elif evaluation != "standard":
        options["optimizer"] = optimizer.removesuffix(f"-{evaluation}")
    return options


def lower_is_better(metric: str) -> bool:
    """Whether a metric, such as `dev/loss`, is a loss; others are scores."""
    return metric.rpartition("/")[2] == "loss"


def dev_metric(metric: str) -> str:
    """The name, if it is of a dev metric; else UserError."""
    if not metric.startswith("dev/"):
        raise UserError(
            f"optimized_metric={metric}: must be a metric of dev, as dev/loss: nothing is selected"
            " by test"
        )
    return metric
