"""The settings of `zobench bench`; a wrong key or type fails when they are composed."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from zobench.errors import UserError

_NEEDED = "???"  # as omegaconf writes a value that must be given


@dataclass
class Settings:
    """The settings of a bench."""

    model: Any = _NEEDED
    tuning: Any = _NEEDED
    optimizers: list[str] = field(default_factory=list)  # the rows, in the order of the table
    dtype: str = "float32"  # of the weights: float32, bfloat16 or float16
    batch_size: int = 16
    tokens: int = 64  # per example
    logits: str = "all"  # labels: the loss looks at one place per example, as a task's own does
    rounds: int = 5  # each takes one step of every row
    seconds: float | None = None  # no round begins after that many
    noise: int = 16_000_000  # parameters that noise throughput is measured on; 0: it is not
    seed: int = 0  # of tokens, noise, and the order of the rows within a round
    device: str = "auto"  # auto, cpu, cuda, cuda:1, ...
    threads: int | None = None  # of the CPU; null is torch's choice
    out: str | None = None  # where the JSON goes; null: runs/bench/<model, dtype, batch>.json
    runs_root: str = _NEEDED


def check_settings(settings: Mapping[str, Any]) -> None:
    """Raise UserError for an invalid value."""
    for name in ("batch_size", "tokens", "rounds"):
        if settings[name] < 1:
            raise UserError(f"{name}={settings[name]}: must be at least 1")
    if settings["tokens"] == 1 and settings["logits"] == "all":
        raise UserError("tokens=1: logits=all predicts each next token, which needs at least 2")
    if settings["logits"] not in ("all", "labels"):
        raise UserError(f"logits={settings['logits']}: choose all or labels")
    if settings["seconds"] is not None and not settings["seconds"] > 0:
        raise UserError(f"seconds={settings['seconds']}: must be above 0, or null")
    if settings["noise"] < 0 or settings["seed"] < 0:
        raise UserError("noise, seed: must not be negative")
    if settings["threads"] is not None and settings["threads"] < 1:
        raise UserError(f"threads={settings['threads']}: must be at least 1, or null")
    rows = settings["optimizers"]
    if twice := {row for row in rows if rows.count(row) > 1}:
        raise UserError(f"optimizers: {', '.join(sorted(twice))} is listed twice")
    if not all(row.split() and "=" not in row.split()[0] for row in rows):
        raise UserError(
            "optimizers: each is the name of an optimizer, then overrides if any:"
            " \"optimizers=[mezo,'mezo sampler=rademacher']\""
        )
