"""Rows and columns under the names that papers print, such as `MeZO (LoRA)` of `mezo, lora`."""

from collections import Counter
from collections.abc import Sequence

from zobench.titles import title_of

_USUAL = "full"  # the way of tuning that papers do not mention
_ONE_WAY = ("zero_shot", "linear_probe")  # rows that train nothing, or their head in any case


def readable(keys: str, labels: Sequence[str]) -> dict[str, str]:
    """Label -> its printed name; a name that two labels would share is left to neither.

    Args:
        keys: those of the labels, joined by commas. Options of `optimizer` get the name in the
            first line of their yaml, options of `tuning` stand in parentheses behind it.
        labels: the values of the keys, joined by commas.
    """
    parts = [key.strip() for key in keys.split(",")]
    names = {label: _name(parts, label) for label in labels}
    counts = Counter(names.values())
    return {label: name if counts[name] == 1 else label for label, name in names.items()}


def heading(keys: str) -> str:
    """The head of the column that the labels are in."""
    parts = [key.strip() for key in keys.split(",")]
    if "optimizer" not in parts:
        return keys
    return ", ".join(
        "method" if part == "optimizer" else part for part in parts if part != "tuning"
    )


def method_name(option: str) -> str:
    """The name of an option of `optimizer`, or of the evaluation that a run's name has for it."""
    for group in ("optimizer", "evaluation"):
        if (found := title_of(group, option)) is not None:
            return found[0]
    optimizer, dash, evaluation = option.partition("-")
    found = title_of("optimizer", optimizer) if dash else None
    return f"{found[0]}, {evaluation.replace('_', ' ')}" if found else option


def tuning_name(option: str) -> str:
    """The name of an option of `tuning`."""
    found = title_of("tuning", option)
    return found[0] if found else option


def _name(keys: Sequence[str], label: str) -> str:
    values = label.split(", ")
    if len(values) != len(keys):  # a value has a comma of its own
        return label
    chosen = dict(zip(keys, values, strict=True))
    tuning = chosen.pop("tuning", None)
    if "optimizer" not in chosen:
        return ", ".join(
            tuning_name(v) if k == "tuning" else v for k, v in zip(keys, values, strict=True)
        )
    usual = tuning in (None, _USUAL) or chosen["optimizer"] in _ONE_WAY
    chosen["optimizer"] = method_name(chosen["optimizer"])
    name = ", ".join(chosen.values())
    return name if usual else f"{name} ({tuning_name(str(tuning))})"
